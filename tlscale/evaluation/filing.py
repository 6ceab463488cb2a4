"""Outcomes of one arm on one suite -> measurements, and both into the run directory. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tlscale.evaluation.metrics import metric as known_metric
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_lines


def measured(
    outcomes: Sequence[Outcome],
    metrics: Sequence[str],
    layout: RunLayout,
    *,
    suite: str,
    arm: str,
    predictor: str,
    stage: str | None,
) -> tuple[Measurement, ...]:
    """What `metrics` make of `outcomes`, in their order."""
    path = layout.outcomes(arm, suite)
    made = []
    for name in metrics:
        value, stderr = known_metric(name)(outcomes)
        if math.isnan(value) and (outcomes[0].values is not None):
            # no item has what this metric is about, such as one without contamination
            continue
        made.append(
            Measurement(
                suite=suite,
                arm=arm,
                metric=name,
                value=value,
                stderr=stderr,
                n=len(outcomes),
                predictor=predictor,
                stage=stage,
                outcomes=str(path.relative_to(layout.root)),
            )
        )
    return tuple(made)


def file(
    outcomes: Sequence[Outcome],
    made: Sequence[Measurement],
    layout: RunLayout,
    *,
    suite: str,
    arm: str,
) -> None:
    """Writes outcomes and measurements; one process does it for all.

    Raises:
        WriteError: the system refuses.
    """
    write_lines(
        layout.outcomes(arm, suite), [outcome.model_dump(exclude_none=True) for outcome in outcomes]
    )
    for measurement in made:
        append_line(layout.measurements, measurement.model_dump())
