"""The part of a report on a chain of stages: how target and retention stood after each."""

from __future__ import annotations

from collections.abc import Sequence

from tlscale.evaluation.types import Measurement
from tlscale.planning.carrying import SAID
from tlscale.report.blocks import Block, Column, Section, Table, Text
from tlscale.report.read import RunFacts, SeedFacts
from tlscale.report.words import count, metric_name, seconds, unit, value
from tlscale.runs.record import read_lines

BASE = "base"
SUITES = ("validation", "retention")
NONE = "not measured"


def stages(run: RunFacts) -> Section | None:
    """A row for the base and for each stage, means over seeds; nothing for a run of one stage."""
    if len(run.first.stages) < 2:
        return None
    scores = [_scores(seed) for seed in run.seeds]
    metrics = {suite: _metric(scores, suite) for suite in SUITES}
    shown = [(suite, metric) for suite, metric in metrics.items() if metric is not None]
    columns = (
        Column("after"),
        Column("begins"),
        Column("steps", True),
        Column("training time", True),
        *(Column(f"{metric_name(metric)}, {suite} rows", True) for suite, metric in shown),
    )
    rows = []
    for index, name in enumerate((BASE, *(stage.name for stage in run.first.stages))):
        about = ("the base", "", "", "") if index == 0 else _stage(run, index - 1)
        cells = (_mean(scores, (name, suite, metric), run.task) for suite, metric in shown)
        rows.append((*about, *cells))
    blocks: list[Block] = [Table("The base, and what each stage made of it", columns, tuple(rows))]
    if metrics["validation"] is None:
        blocks.append(
            Text(
                "How the target stood between stages is not known: there are no validation rows (give "
                "data.validation or data.validation_split), and test rows are kept for the result.",
                note=True,
            )
        )
    return Section("stages", "Stage by stage", tuple(blocks))


Key = tuple[str, str, str]


def _scores(seed: SeedFacts) -> dict[Key, float]:
    """By stage or base, suite and metric; of repeated measurements the last counts."""
    layout, found = seed.layout, {}
    last = seed.stages[-1].name
    on_validation = seed.plan.recipe.evaluate.split == "validation"
    for row in read_lines(layout.measurements):
        m = Measurement.model_validate(row)
        name = {"base": BASE, "tuned": last}.get(m.arm)
        suite = "validation" if m.suite == "target" and on_validation else m.suite
        if name is not None and suite in SUITES:
            found[name, suite, m.metric] = m.value
    for row in read_lines(layout.standing.measurements):
        m = Measurement.model_validate(row)
        found[m.arm, m.suite, m.metric] = m.value
    return found


def _metric(scores: Sequence[dict[Key, float]], suite: str) -> str | None:
    return next((key[2] for one in scores for key in one if key[1] == suite), None)


def _mean(scores: Sequence[dict[Key, float]], key: Key, task: str) -> str:
    values = [one[key] for one in scores if key in one]
    return value(sum(values) / len(values), unit(key[2], task)) if values else NONE


def _stage(run: RunFacts, index: int) -> tuple[str, str, str, str]:
    planned = run.first.stages[index].planned
    repeats = [seed.stages[index] for seed in run.seeds]
    steps = [one.steps for one in repeats if one.steps is not None]
    spent = [one.seconds for one in repeats if one.seconds is not None]
    begins = SAID[planned.stage.carry].format(planned.stage.starts_from)
    return (
        planned.stage.name,
        begins,
        count(sum(steps) / len(steps)) if steps else "did not finish",
        seconds(sum(spent) / len(spent)) if spent else "",
    )
