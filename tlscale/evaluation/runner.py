"""Runs suites through predictors and files what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlscale.data.examples import Example
from tlscale.evaluation.metrics import METRICS
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_lines

Predict = Callable[[Sequence[tuple[int, Example]]], list[Outcome]]
Collect = Callable[[list[Outcome]], list[Outcome]]


@dataclass(frozen=True)
class Suite:
    """Examples to be scored, and by which metrics; `name` is target or retention."""

    name: str
    examples: Sequence[Example]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """Who answers: the `base` or the `tuned` model, how, and after which stage."""

    name: str
    predictor: str
    stage: str | None
    predict: Predict
    metrics: tuple[str, ...] | None = None


def evaluate(
    suite: Suite, arm: Arm, layout: RunLayout, *, rank: int, world: int, collect: Collect
) -> tuple[Measurement, ...]:
    """Scores `suite` by `arm`; rank 0 files outcomes and measurements in the run directory.

    Every process scores its share, so the metrics don't depend on how many there are.
    """
    mine = [(at, suite.examples[at]) for at in range(rank, len(suite.examples), world)]
    outcomes = sorted(collect(arm.predict(mine)), key=lambda outcome: outcome.item)
    path = layout.outcomes(arm.name, suite.name)
    made = []
    for metric in suite.metrics if arm.metrics is None else arm.metrics:
        value, stderr = METRICS[metric](outcomes)
        made.append(
            Measurement(
                suite=suite.name,
                arm=arm.name,
                metric=metric,
                value=value,
                stderr=stderr,
                n=len(outcomes),
                predictor=arm.predictor,
                stage=arm.stage,
                outcomes=str(path.relative_to(layout.root)),
            )
        )
    if rank == 0:
        write_lines(path, [outcome.model_dump(exclude_none=True) for outcome in outcomes])
        for measurement in made:
            append_line(layout.measurements, measurement.model_dump())
    return tuple(made)
