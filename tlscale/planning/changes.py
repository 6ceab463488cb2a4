"""What may change in a run that has begun: how it is carried out, never what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tlscale.planning.types import Plan

# Settings of a recipe under which the steps stay the same, or equal up to rounding.
MAY_CHANGE = (
    "hardware.processes",
    "hardware.machines",
    "hardware.sharding",
    "hardware.offload",
    "hardware.memory_per_device",
    "launch",
    "report",
    "train.async_save",
    "train.dataloader_num_workers",
    "train.gradient_accumulation_steps",
    "train.hang_timeout",
    "train.keep_checkpoints",
    "train.logging_steps",
    "train.max_skipped_steps",
    "train.on_nonfinite",
    "train.on_save_failure",
    "train.per_device_train_batch_size",
    "train.report_to",
    "train.save_steps",
    "train.train_batch_size",
)


@dataclass(frozen=True)
class Change:
    """One setting of the recipe: its path, the value before and the value now."""

    path: str
    before: Any
    now: Any

    @property
    def allowed(self) -> bool:
        """Whether a run that has begun can go on with it; rows a step may not change in all."""
        return any(self.path == one or self.path.startswith(f"{one}.") for one in MAY_CHANGE)

    def __str__(self) -> str:
        return f"{self.path}: {json.dumps(self.before)} -> {json.dumps(self.now)}"


def resume_key(plan: Plan) -> str:
    """Sixteen hex digits over what a checkpoint must agree with to be loaded into a run of `plan`."""
    recipe = plan.recipe.model_dump(mode="json", include={"model", "data"})
    content = {
        "recipe": recipe,
        "seed": plan.seed,
        "facts": plan.facts.model_dump(mode="json", exclude={"folder"}),
        "device": plan.world.device,
        "dtype": plan.world.dtype,
        "max_length": plan.max_length,
        "stages": [
            {
                "stage": planned.stage.model_dump(
                    mode="json",
                    exclude={"safety": True, "budget": {"save_steps": True, "logging_steps": True}},
                ),
                "rows_per_step": planned.batch.total,
                "decisions": [decision.model_dump(mode="json") for decision in planned.decisions],
            }
            for planned in plan.stages
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def changes(before: Plan, now: Plan) -> tuple[Change, ...]:
    """The recipe's settings that differ; the seed counts as one."""
    old, new = (plan.recipe.model_dump(mode="json") for plan in (before, now))
    found = list(_differing("", old, new))
    if before.seed != now.seed and not any(change.path == "seed" for change in found):
        found.append(Change("seed", before.seed, now.seed))
    return tuple(found)


def _differing(path: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _differing(f"{path}.{name}" if path else name, old.get(name), new.get(name))
    elif old != new:
        yield Change(path, old, new)
