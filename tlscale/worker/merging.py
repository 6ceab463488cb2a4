"""`tlscale merge`: the run's final adapter inside its base, as a checkpoint that needs neither."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tlscale.models.merge import Drift, Merged, export
from tlscale.planning.types import Plan
from tlscale.recipe.base import Frozen
from tlscale.runs.layout import RunLayout
from tlscale.runs.result import mergeable
from tlscale.worker.alone import alone
from tlscale.worker.chain import starting_point

QUANTIZED = """\
the adapter was trained on a base in {kind}. Packed weights have no room for what an adapter adds,
          so it was added to the base's weights as they were before, in {dtype}. The adapter had learned
          to make up for the rounding of {kind}, which the merged model doesn't have: that is the drift.
          Score the merged model before you use it, or use the adapter beside the {kind} base."""


class Request(Frozen):
    """What `tlscale merge` was asked for."""

    output: str | None = None


def merge(plan: Plan, layout: RunLayout, as_json: bool, request: str = "{}") -> None:
    """Merges, and says how far the outputs moved by it.

    Raises:
        UsageError: there is nothing to merge, or the target exists.
    """
    asked = Request.model_validate_json(request)
    target = layout.merged if asked.output is None else Path(asked.output)
    mergeable(layout, target)
    job = alone(plan, layout)
    planned = job.plan.stages[-1]
    made = export(
        layout.artifact(planned.stage.name),
        target,
        job.processor,
        model=starting_point(job, planned)[0],
        facts=plan.facts,
        world=job.plan.world,
    )
    print(json.dumps({**asdict(made), "folder": str(made.folder)}) if as_json else _described(made))


def _described(made: Merged) -> str:
    lines = [f"merged    {made.folder}   a checkpoint in {made.dtype}, {made.bytes / 1e6:,.1f} MB"]
    if made.quantization == "none":
        lines.append(f"drift     {_figures(made.drift)}   merged against adapter on base, recorded inputs")
        return "\n".join(lines)
    lines += [
        f"drift     {_figures(made.drift)}   merged against adapter on the {made.quantization} base",
        f"          {_figures(made.rounding)}   merged against adapter on the base in {made.dtype}",
        f"note      {QUANTIZED.format(kind=made.quantization, dtype=made.dtype)}",
    ]
    return "\n".join(lines)


def _figures(drift: Drift) -> str:
    return f"max {drift.maximum:.1e}  mean {drift.mean:.1e}"
