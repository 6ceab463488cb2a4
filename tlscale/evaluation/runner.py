"""Runs suites through predictors and files what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tlscale.data.examples import Example
from tlscale.evaluation import filing
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import event

Predict = Callable[[Sequence[tuple[int, Example]]], list[Outcome]]
Collect = Callable[[list[Outcome]], list[Outcome]]


@dataclass(frozen=True)
class Suite:
    """Examples to be scored, and by which metrics; `name` is target or retention, `split` their role.

    `parts` are suites of their own, of some of the examples by their number, such as those of one task.
    """

    name: str
    examples: Sequence[Example]
    metrics: tuple[str, ...]
    split: str = "test"
    parts: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """Who answers: the `base` or the `tuned` model, how, and after which stage.

    `label_free` answers rows whose labels nobody knows.
    """

    name: str
    predictor: str
    stage: str | None
    predict: Predict
    metrics: tuple[str, ...] | None = None
    label_free: Predict | None = None


def evaluate(
    suite: Suite, arm: Arm, layout: RunLayout, *, rank: int, world: int, collect: Collect
) -> tuple[Measurement, ...]:
    """Scores `suite` by `arm`; rank 0 files outcomes and measurements in the run directory.

    Every process scores its share, so the metrics don't depend on how many there are.
    """
    mine = [(at, suite.examples[at]) for at in range(rank, len(suite.examples), world)]
    outcomes = sorted(collect(arm.predict(mine)), key=lambda outcome: outcome.item)
    made = _filed(outcomes, suite, arm, layout, leads=rank == 0)
    if rank == 0:
        # how often which rows were looked at, for the report to say
        event(
            layout.events, "scored", suite=suite.name, arm=arm.name, split=suite.split, items=len(outcomes)
        )
    for name, items in suite.parts.items():
        # numbered from 0, as the same rows are where they are scored alone
        own = [outcomes[item].model_copy(update={"item": at}) for at, item in enumerate(items)]
        made += _filed(own, replace(suite, name=name), arm, layout, leads=rank == 0)
    return made


def _filed(
    outcomes: list[Outcome], suite: Suite, arm: Arm, layout: RunLayout, *, leads: bool
) -> tuple[Measurement, ...]:
    made = filing.measured(
        outcomes,
        suite.metrics if arm.metrics is None else arm.metrics,
        layout,
        suite=suite.name,
        arm=arm.name,
        predictor=arm.predictor,
        stage=arm.stage,
    )
    if leads:
        filing.file(outcomes, made, layout, suite=suite.name, arm=arm.name)
    return made
