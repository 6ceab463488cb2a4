"""A plan as a few named facts: the same for experiment trackers, for the list of runs and for cards."""

from __future__ import annotations

from tlscale.planning.types import Plan

Fact = str | int | float


def facts_of(plan: Plan) -> dict[str, Fact]:
    """What tells one run from another, flat, in values that every tracker takes."""
    recipe, last = plan.recipe, plan.stages[-1] if plan.stages else None
    strategy = recipe.strategy or {}
    found: dict[str, Fact] = {
        "name": recipe.name,
        "fingerprint": plan.fingerprint,
        "seed": plan.seed,
        "task": recipe.model.task,
        "base": plan.facts.model,
        "commit": plan.facts.commit or "none",
        "quantization": recipe.model.quantization,
        "strategy": str(strategy.get("kind", "stages")),
        "stages": " > ".join(one.stage.name for one in plan.stages) or "none",
        "device": plan.world.device,
        "processes": plan.world.processes,
        "dtype": plan.world.dtype,
        "max_length": plan.max_length,
    }
    if "method" in strategy:
        found["method"] = str(strategy["method"])
    if last is not None:
        found |= {
            "trainable": last.trainable,
            "parameters": last.total,
            "learning_rate": last.stage.update.learning_rate,
            "rows_per_step": last.batch.total,
        }
    for data in plan.data:
        found[f"data.{data.role}"] = data.where
    return found
