"""The smallest change of a recipe with which a plan that doesn't fit would fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tlscale.errors import PlanError
from tlscale.planning.compile import compile_plan, needed
from tlscale.planning.types import Plan, PlannedStage
from tlscale.recipe.types import Recipe

# of an estimate that was too low, what may be needed at most for the next try to be worth it
SAFER = 0.8


def account(planned: PlannedStage) -> str:
    """Where the bytes of a device go, in one line."""
    items = ", ".join(f"{item.name} {_gb(item.bytes)}" for item in planned.memory)
    return f"{items}: {_gb(needed(planned))} GB"


def smallest_change(plan: Plan, *, happened: bool) -> str | None:
    """Overrides that make the plan fit, the cheapest first; `None` where no single step is enough.

    Args:
        plan: Does not fit, or turned out not to.
        happened: Whether memory ran out although the plan fitted: its estimate was too low, and a change is
            to save a good part of it.
    """
    hungriest = max(plan.stages, key=needed)
    room = plan.world.memory_per_device
    limit = int(SAFER * needed(hungriest)) if happened or room is None else room
    for change in _changes(plan, hungriest):
        try:
            made = compile_plan(_changed(plan.recipe, change), seed=plan.seed, offline=True)
        except PlanError:
            continue
        if max(needed(planned) for planned in made.stages) <= min(limit, room or limit):
            return " ".join(f"{key}={str(value).lower()}" for key, value in change.items())
    return None


def _changes(plan: Plan, planned: PlannedStage) -> Iterator[dict[str, Any]]:
    """From those that change no result to those that do."""
    batch = planned.batch
    smaller = [m for m in range(batch.micro - 1, 0, -1) if batch.micro * batch.accumulation % m == 0]
    sizes: list[dict[str, Any]] = [
        {"train.per_device_train_batch_size": m, "train.train_batch_size": batch.total} for m in smaller
    ]
    recompute: dict[str, Any] = {"train.gradient_checkpointing": True}
    yield from sizes
    yield recompute
    yield from ({**size, **recompute} for size in sizes)
    if plan.world.processes > 1:
        yield from ({"hardware.sharding": name} for name in ("zero2", "zero3", "fsdp2"))
    if planned.stage.adapter is not None:
        yield {"model.quantization": "nf4"}
        yield {"model.quantization": "nf4", **(sizes[-1] if sizes else {}), **recompute}
    yield {"data.max_length": max(1, plan.max_length // 2)}


def _changed(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    written = recipe.model_dump(mode="json", exclude_unset=True)
    for key, value in change.items():
        section, _, name = key.partition(".")
        written[section] = {**(written.get(section) or {}), name: value}
        if name == "per_device_train_batch_size":
            written[section].pop("gradient_accumulation_steps", None)
    return Recipe.model_validate(written, strict=False)


def _gb(value: int) -> str:
    return f"{value / 1e9:.1f}" if value >= 1e8 else f"{value / 1e9:.3f}"
