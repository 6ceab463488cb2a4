"""O-LoRA: what is learned now stays clear of what earlier adapters learned.

Wang et al. 2023 (arXiv:2310.14152). The rows of a LoRA's A span the inputs that its change of a weight
looks at: orthogonal to those of the adapters that are in the base, it leaves what they do alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tlscale.engine.objectives import Objective, Setting
from tlscale.engine.terms.staying import WHOLE, penalty
from tlscale.errors import PlanError
from tlscale.models.heads import core
from tlscale.models.names import as_peft
from tlscale.models.shifts import ADAPTER_NAME

FILE = "adapter_model.safetensors"
START, END = "base_model.model.", ".lora_A.weight"


def make_o_lora(options: Mapping[str, Any], setting: Setting) -> Objective:
    """The sum of the squared inner products of the new A's rows with those of every earlier A.

    Raises:
        PlanError: no earlier adapter, one that can't be read, or none that shares a module with this one.
    """
    backend = setting.runtime.planned.backend
    if backend not in WHOLE:
        raise PlanError(
            f"train.objective.o_lora: needs whole weights on every process, and {backend} shards them; use "
            "hardware.sharding: none, or replay"
        )
    folders = (*(Path(folder).expanduser() for folder in options["adapters"]), *setting.earlier)
    if not folders:
        raise PlanError(
            "train.objective.o_lora: there is no earlier adapter to stay clear of; give adapters: "
            "[FOLDER], or carry: merge in a stage that follows another"
        )
    now = _live(setting.module)
    pairs = [
        (now[module], earlier.to(now[module].device))
        for folder in folders
        for module, earlier in read(folder).items()
        if module in now and now[module].shape[1] == earlier.shape[1]
    ]
    if not pairs:
        said = ", ".join(map(str, folders))
        raise PlanError(f"train.objective.o_lora: {said}: adapts no module that this stage's LoRA adapts")
    return penalty(lambda: overlap(pairs))


def overlap(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Over pairs of A, [rank, inputs] each: the sum of the squares of all inner products of rows."""
    return torch.stack([(one.float() @ other.float().T).square().sum() for one, other in pairs]).sum()


def read(folder: Path) -> dict[str, Tensor]:
    """The A of every module of a saved LoRA, [rank, inputs], by the module's name in the base.

    Raises:
        PlanError: it holds none, or is no adapter.
    """
    try:
        tensors = load_file(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise PlanError(
            f"train.objective.o_lora: {folder}: not an adapter that can be read: {error}"
        ) from error
    found = {
        name.removeprefix(START).removesuffix(END): tensor
        for name, tensor in tensors.items()
        if name.endswith(END)
    }
    if not found:
        raise PlanError(f"train.objective.o_lora: {folder}: holds no LoRA; only method: lora has an A")
    return found


def _live(module: nn.Module) -> dict[str, Tensor]:
    from peft.tuners.lora import LoraLayer

    peft: Any = as_peft(core(module))
    found: dict[str, Tensor] = {}
    for name, part in peft.named_modules():
        layer: Any = part
        if isinstance(part, LoraLayer) and ADAPTER_NAME in layer.lora_A:
            found[name.removeprefix(START)] = layer.lora_A[ADAPTER_NAME].weight
    return found
