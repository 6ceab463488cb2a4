"""Measured scores of every arm, averaged over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tlscale.report.evidence import Evidence
from tlscale.report.types import ArmScore


def scores(evidence: Evidence) -> tuple[ArmScore, ...]:
    """Every measured score, averaged over seeds."""
    found = []
    for arm, by_seed in evidence.arms.items():
        rows = [scored.measured for scored in by_seed.values()]
        for asked in dict.fromkeys(asked for row in rows for asked in row):
            seen = [row[asked] for row in rows if asked in row]
            values = [m.value for m in seen]
            found.append(
                ArmScore(
                    arm=arm,
                    suite=asked[0],
                    metric=asked[1],
                    value=sum(values) / len(values),
                    stderr=_stderr(values, [m.stderr for m in seen]),
                    n_seeds=len(seen),
                    predictor=seen[0].predictor,
                )
            )
    return tuple(found)


def _stderr(values: Sequence[float], errors: Sequence[float | None]) -> float | None:
    """Over items, which the seeds share, and over seeds."""
    known = [error for error in errors if error is not None]
    if len(known) < len(values):
        return None
    mean, count = sum(values) / len(values), len(values)
    between = sum((value - mean) ** 2 for value in values) / (count - 1) / count if count > 1 else 0.0
    return math.sqrt(sum(error**2 for error in known) / count + between)
