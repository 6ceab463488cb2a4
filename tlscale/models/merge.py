"""An adapter added into its base, as an ordinary checkpoint, and how far its outputs move by that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlscale.errors import PlanError, UsageError, VerificationError
from tlscale.models import artifact, headfiles
from tlscale.models.heads import PooledClassifier, core
from tlscale.models.load import load_base
from tlscale.models.names import as_peft
from tlscale.models.quiet import peft_errors, quiet
from tlscale.models.saving import hashes, into_place, saving
from tlscale.models.verify import changed_files
from tlscale.planning.types import Facts, World
from tlscale.recipe.types import Model
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import write_json


@dataclass(frozen=True)
class Drift:
    """Absolute differences of two models' outputs on the recorded inputs, in the outputs' own unit."""

    maximum: float
    mean: float


@dataclass(frozen=True)
class Merged:
    """A merged checkpoint in `folder`, reloaded from disk and compared.

    `drift` is against the adapter on the base as it was trained on. `rounding` is against the adapter on
    the base in full precision; it differs from `drift` for a quantized base only.
    """

    folder: Path
    quantization: str
    dtype: str
    bytes: int
    drift: Drift
    rounding: Drift


def merge(folder: Path, target: Path, *, model: Model, facts: Facts, world: World) -> Path:
    """Writes the adapter in `folder`, added into its base in full precision, as a checkpoint to `target`.

    Raises:
        PlanError: the adapter's method has no weights that could be added.
    """
    module = _on_full_base(folder, model=model, facts=facts, world=world)
    with saving(target) as partial:
        _write(module, folder, partial, facts)
        into_place(partial, target)
    return target


def export(
    folder: Path, target: Path, processor: Any, *, model: Model, facts: Facts, world: World
) -> Merged:
    """As `merge`, with the processor and a manifest beside the weights, and the outputs compared.

    Args:
        folder: An adapter as `artifact.save` left it.
        target: A new folder; appears whole or not at all.
        processor: The tokenizer or image processor, saved along.

    Raises:
        UsageError: `target` exists.
        PlanError: the adapter's method has no weights that could be added.
        VerificationError: the adapter is not the one that was saved, or the merged model's outputs are
            not finite.
    """
    if target.exists():
        raise UsageError(f"{target} exists; name another folder with --output, or remove it")
    manifest = artifact.read_manifest(folder)
    damage = list(changed_files(folder, manifest))
    if damage:
        raise VerificationError(f"{folder}: {'; '.join(damage)}")
    inputs, _ = artifact.read_probe(folder)
    precision: torch.dtype = getattr(torch, manifest["compute_dtype"])

    def outputs(module: nn.Module) -> torch.Tensor:
        return artifact.forward(module.to(world.device), inputs, precision)

    as_trained = None
    if model.quantization != "none":
        as_trained = outputs(artifact.load(folder, model=model, facts=facts, world=world))
    module = _on_full_base(folder, model=model, facts=facts, world=world)
    on_full = outputs(module)
    with saving(target) as partial:
        _write(module, folder, partial, facts)
        with quiet():
            processor.save_pretrained(str(partial))
        merged = outputs(_reloaded(partial, model=model, facts=facts, world=world))
        rounding = _drift(merged, on_full)
        drift = rounding if as_trained is None else _drift(merged, as_trained)
        if not torch.isfinite(merged).all():
            raise VerificationError(f"{folder}: merged into its base it gives outputs that are not finite")
        said = _manifest(manifest, partial, world, model, drift)
        write_json(partial / MANIFEST, said)
        into_place(partial, target)
    size = sum(file["bytes"] for file in said["files"].values())
    return Merged(target, model.quantization, world.dtype, size, drift, rounding)


def _on_full_base(folder: Path, *, model: Model, facts: Facts, world: World) -> nn.Module:
    full = model.model_copy(update={"quantization": "none"})
    module = artifact.load(folder, model=full, facts=facts, world=world)
    peft = as_peft(core(module))
    if peft is None or not hasattr(peft.base_model, "merge_and_unload"):
        raise PlanError(
            f"{folder}: holds no adapter that can be merged: its method adds no weights to the base's; use "
            "it beside its base, and start a later stage from base"
        )
    return module


def _write(module: nn.Module, folder: Path, partial: Path, facts: Facts) -> None:
    """Merges, which uses up `module`, and writes what it became to `partial`."""
    inner: Any = core(module)
    with peft_errors(str(folder)):
        merged = inner.merge_and_unload()
    with quiet():
        merged.save_pretrained(str(partial))
    if isinstance(module, PooledClassifier):
        headfiles.save(module, partial, facts.labels)


def _reloaded(partial: Path, *, model: Model, facts: Facts, world: World) -> nn.Module:
    own = model.model_copy(
        update={"model_name_or_path": str(partial), "init": "pretrained", "quantization": "none"}
    )
    module = load_base(own, facts, head=headfiles.read_shape(partial), world=world, seed=0)
    if isinstance(module, PooledClassifier):
        headfiles.load_into(module, partial)
    return module


def _drift(one: torch.Tensor, other: torch.Tensor) -> Drift:
    difference = (one - other).abs()
    return Drift(float(difference.max()), float(difference.mean()))


def _manifest(
    adapter: Mapping[str, Any], folder: Path, world: World, model: Model, drift: Drift
) -> dict[str, Any]:
    kept = ("stage", "task", "base", "revision", "vocab_size", "labels", "compute_dtype")
    return {
        "kind": "checkpoint",
        **{name: adapter[name] for name in kept},
        "quantization": "none",
        "device": world.device,
        "stored_dtype": world.dtype,
        "merged": {
            "trained_on": model.quantization,
            "adapter": adapter["files"],
            "max_drift": drift.maximum,
            "mean_drift": drift.mean,
        },
        "tensors": 0,
        "initial": {},
        "files": hashes(folder),
    }
