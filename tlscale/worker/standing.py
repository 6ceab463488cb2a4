"""How target and retention stand after each of several stages, on rows that are not the test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from tlscale.evaluation.metrics import DEFAULTS
from tlscale.evaluation.runner import Arm, Suite
from tlscale.evaluation.types import Measurement
from tlscale.planning.types import Plan, PlannedStage
from tlscale.runs.record import read_lines
from tlscale.worker.chain import Job
from tlscale.worker.measure import Judge, model_arm
from tlscale.worker.stages import restored

VALIDATION, RETENTION = "validation", "retention"


def several(plan: Plan) -> bool:
    """Whether there is anything between the base and the result."""
    return len(plan.stages) > 1


def at_an_end(judge: Judge, arm: Arm, stage: str) -> None:
    """The base's or the result's score on the validation rows; what else they score stands elsewhere.

    Nothing of a run of one stage, nor where the result is judged on these rows anyway.
    """
    asked = judge.plan.recipe.evaluate
    if several(judge.plan) and asked.split != VALIDATION and not _filed(judge, stage):
        judge.score_on(_suites(judge, (VALIDATION,)), replace(arm, name=stage), judge.layout.standing)


def after(job: Job, judge: Judge, planned: PlannedStage, module: nn.Module | None) -> None:
    """Scores what a stage that isn't the last has made, unless an earlier try has; says what came of it.

    Args:
        module: The live model; `None` where it is read back from what the stage saved.
    """
    plan, name = job.plan, planned.stage.name
    if planned is plan.stages[-1] or _filed(judge, name):
        return
    roles = (*((VALIDATION,) if _answers(plan, planned) else ()), RETENTION)
    suites = _suites(judge, roles)
    if not suites:
        return
    job.life.pulse.at(f"scoring stage {name}")
    job.life.guard()
    job.life.stops.leave_if_asked()
    module = restored(job, planned) if module is None else module
    made = judge.score_on(suites, model_arm(judge, module, name, name), judge.layout.standing)
    job.reporter.phase("after", f"{name}: {_text(made)}")


def _answers(plan: Plan, planned: PlannedStage) -> bool:
    """Whether the head is one that was trained, by this stage or one that it goes on from."""
    stages = {one.stage.name: one for one in plan.stages}
    if not plan.facts.labels or (planned.stage.head.kind == "native" and not plan.facts.head_is_new):
        return True
    while True:
        heads = [one for one in planned.decisions if one.name.startswith("head.")]
        if any(one.lr_scale is not None for one in heads):
            return True
        if planned.stage.starts_from == "base":
            return False
        planned = stages[planned.stage.starts_from]


def _suites(judge: Judge, roles: Sequence[str]) -> tuple[Suite, ...]:
    asked = judge.plan.recipe.evaluate
    chosen = {VALIDATION: asked.target, RETENTION: asked.retention}
    defaults = DEFAULTS[judge.plan.recipe.model.task]
    return tuple(
        Suite(role, judge.examples[role], chosen[role] or defaults, role)
        for role in roles
        if judge.examples.get(role)
    )


def _filed(judge: Judge, stage: str) -> bool:
    return any(row["arm"] == stage for row in read_lines(judge.layout.standing.measurements))


def _text(made: Sequence[Measurement]) -> str:
    parts = []
    for suite in dict.fromkeys(m.suite for m in made):
        mine = [m for m in made if m.suite == suite]
        scores = ", ".join(f"{m.metric} {m.value:.4g}" for m in mine)
        parts.append(f"{suite} {scores} [{mine[0].n:,} items]")
    return "   ".join(parts)
