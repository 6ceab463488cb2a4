"""Several LoRA adapters in one model: each row passes through those of its own task.

A layer's change is the sum over the adapters, each times 1 for the rows that pass through it and 0 for the
others. So rows of all tasks go through the base together, every adapter has a gradient in every pass, and
a single task gives the same numbers as plain LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlscale.errors import PlanError
from tlscale.models.taskheads import Sizes, task_of
from tlscale.planning.types import SHARED_ADAPTER

Hook = Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]
"""(layer, its inputs, its output) -> the output with what the adapters add."""


class Composition(Protocol):
    """Several adapters in one model, and what each layer makes of them."""

    adapters: tuple[str, ...]

    def said(self) -> dict[str, Any]: ...

    def join(self, name: str, layer: Any) -> Hook: ...


class Routes:
    """Which adapters the rows of the current batch pass through.

    Args:
        sizes: Each task and how many classes it has.
        adapters: Their names in PEFT, one for each task in order, after `shared` where all have one.
    """

    def __init__(self, sizes: Sizes, adapters: Sequence[str]) -> None:
        self.sizes, self.adapters = tuple(sizes), tuple(adapters)
        self._shares: Tensor | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Routes:
        """Those that an artifact's manifest tells of."""
        return cls([(name, size) for name, size in manifest["tasks"]], manifest["adapters"])

    def said(self) -> dict[str, Any]:
        """What the manifest of an artifact says of them."""
        return {"adapters": list(self.adapters), "tasks": [list(one) for one in self.sizes]}

    def follow(self, tasks: Tensor) -> None:
        """Sends row after row through the adapters of `tasks`, int64 [rows], until told otherwise."""
        own = functional.one_hot(tasks, len(self.sizes)).float()
        shared = self.adapters[0] == SHARED_ADAPTER
        self._shares = torch.cat([torch.ones_like(own[:, :1]), own], dim=1) if shared else own

    def join(self, name: str, layer: Any) -> Hook:
        """What is to follow a layer's forward pass."""
        return self.add

    def add(self, layer: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A layer's output with what its adapters add; a forward hook."""
        if layer.disable_adapters:
            return output
        assert self._shares is not None, "rows are sent on their way before they come to a layer"
        changed = output
        for name, share in zip(self.adapters, self._shares.unbind(dim=1), strict=True):
            change = change_by(layer, name, given[0])
            if len(change) != len(share):
                raise PlanError(
                    "train.multi_task.adapters: this model's layers don't keep rows apart; use shared"
                )
            changed = changed + change * share.to(change.dtype).view(-1, *[1] * (change.dim() - 1))
        return changed.to(output.dtype)


def change_by(layer: Any, name: str, given: Tensor, *, noisy: bool = True) -> Tensor:
    """What one LoRA adapter adds to a layer's output (Hu et al. 2021, arXiv:2106.09685).

    With its dropout, where it is `noisy` and in training.
    """
    down, up = layer.lora_A[name], layer.lora_B[name]
    seen = given.to(down.weight.dtype)
    change: Tensor = up(down(layer.lora_dropout[name](seen) if noisy else seen)) * layer.scaling[name]
    return change


def routed(peft: Any, routes: Composition) -> nn.Module:
    """`peft` with every adapted layer giving the base's output, and `routes` adding to it.

    Raises:
        PlanError: an adapted layer is no linear one.
    """
    from peft.tuners.lora import LoraLayer

    peft.base_model.set_adapter([])
    for name, layer in peft.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if not layer.lora_A:
            raise PlanError(
                f"{name}: only linear layers can have several adapters; name such in target_modules"
            )
        module: Any = layer
        module.register_forward_hook(routes.join(name, layer))
    found: nn.Module = peft
    return found


def attached(model: nn.Module, fields: Mapping[str, Any], routes: Routes) -> nn.Module:
    """A PEFT model with fresh adapters, all of the same fields."""
    from peft import get_peft_config, get_peft_model

    first, *others = routes.adapters
    made: Any = get_peft_model(model, get_peft_config(deepcopy(dict(fields))), adapter_name=first)
    for name in others:
        made.add_adapter(name, get_peft_config(deepcopy(dict(fields))))
    return routed(made, routes)


def read(model: Any, folder: Path, routes: Routes) -> nn.Module:
    """A PEFT model with the adapters that lie in `folder`, each in a folder of its own name."""
    from peft import PeftModel

    first, *others = routes.adapters
    made: Any = PeftModel.from_pretrained(model, str(folder / first), adapter_name=first)
    for name in others:
        made.load_adapter(str(folder / name), adapter_name=name)
    return routed(made, routes)


def with_tasks(collate: Callable[..., Mapping[str, Any]], sizes: Sizes) -> Callable[..., dict[str, Any]]:
    """`collate`, with the task of each row beside its label: `tasks`, int64 [rows]."""

    def collated(examples: Sequence[Any], **asked: Any) -> dict[str, Any]:
        batch = collate(examples, **asked)
        return {**batch, "tasks": task_of(batch["labels"], sizes)}

    return collated
