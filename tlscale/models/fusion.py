"""Attention over frozen adapters in every layer that they change (AdapterFusion, arXiv:2005.00247).

Its weights belong to the head of ours: they are saved, loaded and verified with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlscale.models.routing import Hook, change_by, routed
from tlscale.planning.fusion import source_folder


class Attention(nn.Module):
    """How much of each adapter's change a layer takes, from the layer's input.

    Queries begin at zero, so every adapter counts alike at first.
    """

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(inputs, size), nn.Linear(outputs, size, bias=False)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def shares(self, given: Tensor, changes: Tensor) -> Tensor:
        """[..., inputs] and [..., adapters, outputs] -> [..., adapters], which sum to 1.

        Keys are of the changes' directions: their lengths differ by orders of magnitude between layers.
        """
        directions = functional.normalize(changes.float(), dim=-1) * sqrt(changes.shape[-1])
        scores = (self.key(directions) * self.query(given.float())[..., None, :]).sum(dim=-1)
        shares: Tensor = (scores / sqrt(self.key.out_features)).softmax(dim=-1)
        return shares

    def forward(self, given: Tensor, changes: Tensor) -> Tensor:
        """The weighted mean of the changes: [..., outputs]."""
        return (self.shares(given, changes)[..., None] * changes).sum(dim=-2)


class Fusion:
    """Frozen adapters, and the attention over them in each layer.

    Args:
        adapters: Their names in PEFT.
        size: Width of queries and keys.
    """

    def __init__(self, adapters: Sequence[str], size: int) -> None:
        self.adapters, self.size = tuple(adapters), size
        self.attention = nn.ModuleDict()
        self.among: dict[str, list[int]] = {}

    def said(self) -> dict[str, Any]:
        """What the manifest of an artifact says of it."""
        return {"adapters": list(self.adapters), "attention": self.size}

    def join(self, name: str, layer: Any) -> Hook:
        """Gives a layer its attention, and what is to follow its forward pass.

        A layer that one adapter alone changes takes all of it: there is nothing to choose among.
        """
        own = [adapter for adapter in self.adapters if adapter in layer.lora_A]
        place = name.replace(".", "/")
        if len(own) > 1:
            self.attention[place] = Attention(layer.in_features, layer.out_features, self.size)
            self.among[place] = [self.adapters.index(adapter) for adapter in own]
        return partial(self._add, place, own)

    def _add(
        self, place: str, own: Sequence[str], layer: Any, given: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if layer.disable_adapters:
            return output
        changes = [change_by(layer, name, given[0], noisy=False) for name in own]
        several = len(own) > 1
        change = self.attention[place](given[0], torch.stack(changes, dim=-2)) if several else changes[0]
        return (output + change).to(output.dtype)


def begun(fields: Mapping[str, Any]) -> tuple[Fusion, list[Path]]:
    """Attention over the adapters that a stage's `fields` name, and where those lie."""
    given = fields["adapters"]
    made = Fusion([f"source_{index}" for index in range(len(given))], int(fields["size"]))
    return made, [source_folder(one) for one in given]


def loaded(model: Any, fusion: Fusion, folders: Sequence[Path]) -> nn.Module:
    """A PEFT model with the adapters in `folders`, frozen, and the fusion over them."""
    from peft import PeftModel

    first, *others = zip(fusion.adapters, folders, strict=True)
    made: Any = PeftModel.from_pretrained(model, str(first[1]), adapter_name=first[0])
    for name, folder in others:
        made.load_adapter(str(folder), adapter_name=name)
    return routed(made, fusion)


@torch.no_grad()
def mean_shares(
    module: nn.Module, fusion: Fusion, batches: Iterable[Mapping[str, Tensor]]
) -> tuple[float, ...]:
    """How much is taken of each adapter, which sums to 1: the mean over layers and places of `batches`.

    Batches are inputs of `module` without labels; padding is left out. Empty where no layer chooses.
    """
    found: list[Tensor] = []
    seen = torch.ones(())

    def tally(among: list[int], attention: Any, given: tuple[Tensor, Tensor], made: Tensor) -> None:
        shares = attention.shares(*given).double()
        counted = seen if seen.shape == shares.shape[:-1] else torch.ones_like(shares[..., 0])
        mean = (shares * counted[..., None]).flatten(0, -2).sum(dim=0) / counted.sum()
        found.append(
            torch.zeros(len(fusion.adapters), dtype=mean.dtype).index_copy(
                0, torch.tensor(among), mean.cpu()
            )
        )

    hooks = [
        part.register_forward_hook(partial(tally, fusion.among[place]))
        for place, part in fusion.attention.items()
    ]
    try:
        for batch in batches:
            seen = batch.get("attention_mask", seen)
            module(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(torch.stack(found).mean(dim=0).tolist()) if found else ()
