"""How far training has moved each weight: the effective change, whatever carries it.

For LoRA that is the product BA with its scale, never A and B apart: many pairs of factors give one product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tlscale.errors import PlanError
from tlscale.models.heads import core
from tlscale.models.names import HEAD, as_peft, canonical

Shift = Callable[[], Tensor]
ADAPTER_NAME = "default"


def shifts(module: nn.Module, *, with_head: bool) -> dict[str, tuple[nn.Parameter, Shift]]:
    """By live name the base's weight and a function to its change so far, with gradient.

    Take it before training: the change of a weight that trains itself is counted from now on.

    Args:
        module: The model, adapter and all.
        with_head: Whether the head's weights count; a new head has nowhere to stay near to.

    Raises:
        PlanError: an adapter that is no plain LoRA: what it adds is no change of weights.
    """
    found: dict[str, tuple[nn.Parameter, Shift]] = {}
    names = canonical(module)
    peft = as_peft(core(module))
    for name, parameter in module.named_parameters():
        head = names[name].startswith(HEAD)
        adapter = peft is not None and not head
        if parameter.requires_grad and not adapter and (with_head or not head):
            found[name] = (parameter, _from_now(parameter))
    if peft is not None:
        found |= _products(module)
    return found


def _from_now(parameter: nn.Parameter) -> Shift:
    start = parameter.detach().clone()
    return lambda: parameter - start


def _products(module: nn.Module) -> dict[str, tuple[nn.Parameter, Shift]]:
    from peft.tuners.lora import LoraLayer

    found: dict[str, tuple[nn.Parameter, Shift]] = {}
    for name, part in module.named_modules():
        layer: Any = part
        if not isinstance(part, LoraLayer) or ADAPTER_NAME not in layer.lora_A:
            continue
        if getattr(layer, "use_dora", {}).get(ADAPTER_NAME) or not hasattr(layer, "get_delta_weight"):
            raise PlanError(f"{name}: its adapter is no plain LoRA, so its change of weights can't be told")
        start = layer.get_delta_weight(ADAPTER_NAME).detach().clone()
        found[f"{name}.base_layer.weight"] = (layer.base_layer.weight, _product(layer, start))
    if not found:
        raise PlanError(
            "the adapter adds no change of weights; use method: lora, or train weights themselves"
        )
    return found


def _product(layer: Any, start: Tensor) -> Shift:
    def shift() -> Tensor:
        changed: Tensor = layer.get_delta_weight(ADAPTER_NAME) - start
        return changed

    return shift
