"""Proves that a saved result is what was trained: whole, finite, moved, and equal when reloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tlscale.errors import PlanError
from tlscale.models import artifact, headfiles
from tlscale.models.heads import core
from tlscale.models.names import as_peft
from tlscale.planning.types import Facts, World
from tlscale.recipe.types import Model
from tlscale.runs.record import sha256

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MUST_MOVE = 0.9
SHOWN = 5
# Largest difference of outputs, relative to the largest output where that is above 1.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 1e-2}
QUANTIZED_TOLERANCE = {"none": 0.0, "nf4": 1e-4, "fp4": 1e-4, "int8": 1e-2}
OTHER_DEVICE = 1e-3
READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, PlanError)


@dataclass(frozen=True)
class VerifyReport:
    """What verification found; `problems` is empty for a good artifact.

    `tensors` counts what was trained, `moved` how much of it differs from its initial value,
    `max_difference` is between the reloaded model's outputs and the trained one's.
    """

    kind: str
    tensors: int
    moved: int
    max_difference: float
    tolerance: float
    problems: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The numbers, as JSON takes them."""
        known = self.max_difference == self.max_difference
        return {
            "kind": self.kind,
            "tensors": self.tensors,
            "moved": self.moved,
            "max_difference": self.max_difference if known else None,
            "tolerance": self.tolerance,
        }


def verify(
    folder: Path, *, model: Model, facts: Facts, world: World, live: nn.Module | None = None
) -> VerifyReport:
    """Checks the artifact in `folder` against its manifest and against a fresh base.

    Args:
        folder: As `artifact.save` left it.
        model: The base that the stage started from.
        live: The trained model, if it is at hand; otherwise its recorded outputs are compared.

    Raises nothing about the artifact itself: whatever is wrong is in the report.
    """
    unknown = float("nan")
    try:
        manifest = artifact.read_manifest(folder)
        kind, initial = manifest["kind"], manifest["initial"]
        tolerance = allowed(manifest, world)
        problems = list(changed_files(folder, manifest))
        problems += [] if problems else _belonging(folder, manifest, facts)
    except (*READ_ERRORS, AttributeError) as error:
        return VerifyReport("unknown", 0, 0, unknown, 0.0, (f"the manifest can't be used: {error}",))
    saved, unread = saved_tensors(folder)
    problems += unread + list(contents(saved))
    difference, moved = unknown, 0
    if not problems:
        try:
            problems, moved, difference = _reloaded(
                folder,
                manifest,
                saved,
                model=model,
                facts=facts,
                world=world,
                live=live,
                tolerance=tolerance,
            )
        except READ_ERRORS as error:
            problems = [f"it can't be loaded on a fresh base: {error}"]
    return VerifyReport(kind, len(initial), moved, difference, tolerance, tuple(problems))


def changed_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """How the files of an artifact differ from those that its manifest vouches for."""
    for name, said in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != said["bytes"] or sha256(path) != said["sha256"]:
            yield f"{name} is not the file that was saved: its hash differs from the manifest's"
    for path in sorted(folder.rglob("*")):
        if path.suffix in PICKLES:
            yield f"{path.relative_to(folder)} is pickled and could run code; only safetensors belong here"


def _belonging(folder: Path, manifest: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    """What ties the artifact to its base."""
    for name, said, found in (
        ("revision", manifest["revision"], facts.commit),
        ("vocab_size", manifest["vocab_size"], facts.architecture.vocab_size),
        ("labels", list(manifest["labels"]), list(facts.labels)),
    ):
        if said != found:
            yield f"{name}: it was trained with {said}, the base here has {found}"
    if manifest["kind"] not in artifact.ADAPTERS:
        return
    from peft import PeftConfig

    for part in manifest.get("adapters", ("",)):
        config = PeftConfig.from_pretrained(str(folder / part))
        for name, said, wanted in (
            ("base_model_name_or_path", config.base_model_name_or_path, manifest["base"]),
            ("revision", config.revision, manifest["revision"]),
        ):
            if said != wanted:
                where = Path(part) / "adapter_config.json"
                yield f"{where}: {name} is {said}, but it was trained on {wanted}"


def saved_tensors(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Every saved tensor by part and name, and what can't be read."""
    saved: dict[str, torch.Tensor] = {}
    problems = []
    for path in sorted(folder.rglob("*.safetensors")):
        if path.name == artifact.PROBE:
            continue
        inside = "" if path.parent == folder else f"{path.parent.relative_to(folder)}/"
        part = {artifact.ADAPTER_WEIGHTS: "adapter", headfiles.WEIGHTS: "head"}.get(path.name, "checkpoint")
        try:
            saved |= {f"{part}:{inside}{name}": tensor for name, tensor in load_file(path).items()}
        except READ_ERRORS as error:
            problems.append(f"{path.name} can't be read: {error}")
    return saved, problems


def contents(saved: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """What is wrong with tensors whatever they belong to."""
    if not saved:
        yield "it holds no tensors"
    yield from _listing("empty", [name for name, t in saved.items() if t.numel() == 0])
    yield from _listing("not finite (NaN or infinity)", [n for n, t in saved.items() if not _finite(t)])


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _reloaded(
    folder: Path,
    manifest: Mapping[str, Any],
    saved: Mapping[str, torch.Tensor],
    *,
    model: Model,
    facts: Facts,
    world: World,
    live: nn.Module | None,
    tolerance: float,
) -> tuple[list[str], int, float]:
    """Problems, moved tensors and the largest difference, from the artifact on a fresh base."""
    fresh = artifact.load(folder, model=model, facts=facts, world=world)
    fresh.to(world.device)
    problems = list(key_problems(fresh, saved))
    if problems:
        return problems, 0, float("nan")
    current = {**_parameters(fresh), **saved} if manifest["kind"] == "checkpoint" else dict(saved)
    still = [n for n, said in manifest["initial"].items() if artifact.digest(current[n]) == said]
    problems += _unmoved(manifest["kind"], still, set(manifest["initial"]), saved)
    inputs, expected = artifact.read_probe(folder)
    precision: torch.dtype = getattr(torch, manifest["compute_dtype"])
    got = artifact.forward(fresh, inputs, precision)
    difference = apart(got, expected)
    if live is not None:
        difference = max(difference, apart(got, artifact.forward(live, inputs, precision)))
    if not difference <= tolerance:
        problems.append(
            f"reloaded on a fresh base its outputs differ by {difference:.1e} (allowed {tolerance:.0e}): "
            "another base, or not all of what was trained was saved"
        )
    return problems, len(manifest["initial"]) - len(still), difference


def _parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    return {f"checkpoint:{name}": p.detach() for name, p in core(module).named_parameters()}


def key_problems(fresh: nn.Module, saved: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Whether an adapter's file holds just what a fresh application of it has; PEFT itself only warns."""
    peft = as_peft(core(fresh))
    if peft is None:
        return
    wanted = {name: tuple(t.shape) for name, t in artifact.adapter_state(peft).items()}
    found = {
        n.removeprefix("adapter:"): tuple(t.shape) for n, t in saved.items() if n.startswith("adapter:")
    }
    yield from _listing("missing", sorted(wanted.keys() - found.keys()))
    yield from _listing("not known to the adapter", sorted(found.keys() - wanted.keys()))
    yield from _listing(
        "of another shape", [n for n in wanted.keys() & found.keys() if wanted[n] != found[n]]
    )


def _unmoved(
    kind: str, still: list[str], trained: set[str], saved: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    """What stayed at its initial value although it was trained.

    One factor of a low-rank product gets its first gradient only after the other has moved, so a product
    counts as moved when any of it has. A checkpoint may hold a few parameters that its task never uses.
    """
    if not trained:
        yield "nothing in it was trained"
    elif kind == "checkpoint":
        if len(still) > (1 - MUST_MOVE) * len(trained):
            yield from _listing(f"still at their initial value ({len(still)} of {len(trained)})", still)
    else:
        moved = {_owner(name) for name in trained - set(still)}
        yield from _listing("still at their initial value", [n for n in still if _owner(n) not in moved])
    zero = [n for n in saved if ".lora_B." in n and not bool(saved[n].any())]
    yield from _listing("zero, so that the adapter does nothing there", zero)


def _owner(name: str) -> str:
    """The layer that a low-rank factor belongs to; other tensors stand for themselves."""
    before, found, _ = name.partition(".lora_")
    return before if found else name


def _listing(what: str, names: list[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        listed = ", ".join(name.rpartition(":")[2] for name in names[:SHOWN])
        yield f"{len(names)} tensors are {what}: {listed}{more}"


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference, relative to the largest expected value where that is above 1."""
    if found.shape != expected.shape:
        return float("inf")
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) / scale


def allowed(manifest: Mapping[str, Any], world: World) -> float:
    """The largest difference of outputs that precision, quantization and another device explain."""
    allowed = max(TOLERANCE[manifest["compute_dtype"]], QUANTIZED_TOLERANCE[manifest["quantization"]])
    return allowed if manifest["device"] == world.device else max(allowed, OTHER_DEVICE)
