"""What a run's stages share, and what each begins from: the base, an adapter, or what was merged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlscale.data.arriving import Arriving
from tlscale.engine.life import Life
from tlscale.engine.runtime import Runtime
from tlscale.models.merge import merge
from tlscale.planning.types import Plan, PlannedStage
from tlscale.recipe.types import Model
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.worker.console import Reporter
from tlscale.worker.examples import Roles


@dataclass(frozen=True)
class Job:
    """What every stage of one run shares; `stream` has the training rows where they aren't read first."""

    plan: Plan
    layout: RunLayout
    runtime: Runtime
    reporter: Reporter
    processor: Any
    examples: Roles
    life: Life = field(default_factory=Life)
    stream: Arriving | None = None


def finished(layout: RunLayout, stage: str) -> bool:
    """Whether a stage has left its artifact, which is renamed into place when whole."""
    return (layout.artifact(stage) / MANIFEST).is_file()


def starting_point(job: Job, planned: PlannedStage) -> tuple[Model, Path | None]:
    """The model that a stage loads, and the adapter it goes on with.

    As the plan has decided on its `carry`; an adapter is merged into its own base on disk. A result that is
    no adapter is the new base.
    """
    model, start = job.plan.recipe.model, planned.stage.starts_from
    if start == "base":
        return model, None
    folder = job.layout.artifact(start)
    before = next(p for p in job.plan.stages if p.stage.name == start)
    if before.stage.adapter is None:
        return model.model_copy(update={"model_name_or_path": str(folder), "init": "pretrained"}), None
    if planned.stage.carry != "merge":
        earlier, _ = starting_point(job, before)
        return earlier, folder if planned.stage.carry == "keep" else None
    merged = job.layout.root / "stages" / f"{start}-merged"
    if job.runtime.leads and not merged.is_dir():
        merge(
            folder, merged, model=starting_point(job, before)[0], facts=job.plan.facts, world=job.plan.world
        )
    job.runtime.accelerator.wait_for_everyone()
    return model.model_copy(update={"model_name_or_path": str(merged), "init": "pretrained"}), None


def merged_before(job: Job, planned: PlannedStage) -> tuple[Path, ...]:
    """The folders of adapters that are merged into the base that a stage loads, first the last."""
    found = []
    by_name = {one.stage.name: one for one in job.plan.stages}
    while planned.stage.starts_from != "base":
        before = by_name[planned.stage.starts_from]
        if planned.stage.carry == "merge":
            found.append(job.layout.artifact(before.stage.name))
        planned = before
    return tuple(found)


def final_stage(plan: Plan, layout: RunLayout) -> PlannedStage | None:
    """The last planned stage that has left an artifact."""
    done = [planned for planned in plan.stages if finished(layout, planned.stage.name)]
    return done[-1] if done else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """An artifact's manifest."""
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return content
