"""Canonical names of a live model's parameters, the ones that rules and plans speak of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from tlscale.models.heads import Encoder, PooledClassifier, core

ADAPTER = "adapter."
ORIGINAL = "original."
HEAD = "head."


def as_peft(module: nn.Module) -> Any | None:
    """`module` if it is a PEFT model, else `None`; doesn't import PEFT, which takes seconds."""
    if "peft" not in sys.modules:
        return None
    from peft import PeftModel

    return module if isinstance(module, PeftModel) else None


def transformers_model(module: nn.Module) -> Any:
    """The transformers model inside `module`, below heads of our own and below PEFT."""
    inner = core(module)
    peft = as_peft(inner)
    return inner if peft is None else peft.get_base_model()


def plain(name: str, model: Any) -> str:
    """The canonical name of a parameter that a transformers model itself calls `name`."""
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not isinstance(getattr(model, prefix, None), nn.Module):
        return name
    if name.startswith(prefix + "."):
        return name.removeprefix(prefix + ".")
    return HEAD + name


def canonical(module: nn.Module) -> dict[str, str]:
    """Live name -> canonical name, for every parameter.

    The backbone's parameters lose the architecture's prefix, those of the task's head are under `head.`,
    those that an adapter adds under `adapter.`. Where PEFT trains a copy of a classification head
    (`modules_to_save`), the copy bears the head's name, and the unused original stands under
    `original.head.`; copies of other modules belong to the adapter.
    """
    found: dict[str, str] = {}
    inner, start = core(module), ""
    if isinstance(module, (Encoder, PooledClassifier)):
        start = "backbone."
        if isinstance(module, PooledClassifier):
            found |= {f"head.{name}": f"{HEAD}{name}" for name, _ in module.head.named_parameters()}
    model = transformers_model(module)
    if as_peft(inner) is None:
        found |= {start + name: plain(name, model) for name, _ in inner.named_parameters()}
    else:
        for live, name, part in _walk(inner, model):
            found[start + live] = _of_part(name, part, model)
    live_names = [name for name, _ in module.named_parameters()]
    return {name: found[name] for name in live_names}


def _of_part(name: str, part: str, model: Any) -> str:
    if part == "adapter":
        return ADAPTER + name
    own = plain(name, model)
    classifies = own.startswith(HEAD) and model.get_output_embeddings() is None
    if part == "copy":
        return own if classifies else f"{ADAPTER}modules_to_save.{own}"
    return ORIGINAL + own if part == "original" and classifies else own


def _walk(peft: nn.Module, model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """(live name, name without PEFT's insertions, part) of every parameter.

    A part is base, adapter, copy or original.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    def visit(part: nn.Module, live: str, name: str, kind: str) -> Iterator[tuple[str, str, str]]:
        own = "adapter" if isinstance(part, (BaseTunerLayer, AuxiliaryTrainingWrapper)) else kind
        for leaf, _ in part.named_parameters(recurse=False):
            full = name + leaf
            yield live + leaf, _without_adapter_name(full) if own == "adapter" else full, own
        for leaf, child in part.named_children():
            below = f"{live}{leaf}."
            if child is model:
                yield from visit(child, below, "", "base")
            elif isinstance(part, BaseTunerLayer) and leaf == "base_layer":
                yield from visit(child, below, name, kind)
            elif isinstance(part, AuxiliaryTrainingWrapper) and leaf == "original_module":
                yield from visit(child, below, name, "original")
            elif isinstance(part, AuxiliaryTrainingWrapper) and leaf == "modules_to_save":
                for adapter, copy in child.named_children():
                    yield from visit(copy, f"{below}{adapter}.", name, "copy")
            else:
                yield from visit(child, below, f"{name}{leaf}.", own)

    yield from visit(peft, "", "", "adapter")


def _without_adapter_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "default")
