"""Whether an adaptation is to be kept, from the outcomes of two arms on rows whose labels nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

from tlscale.evaluation import labelfree
from tlscale.report.evidence import Scored
from tlscale.report.pairing import Outcomes, Pairing, pair
from tlscale.report.types import Gate

INFOMAX = (labelfree.SUITE, "infomax")
NO_ROWS = (
    "There is no label-free gate: it needs labelled rows that were held out of the training rows; set "
    "data.validation_split: 0.1."
)
Sides = Sequence[tuple[Scored, Scored]]


def gated(sides: Sides, against: str, level: float) -> tuple[Gate | None, tuple[str, ...]]:
    """The gate's decision on the second of each pair of arms, or `None` and sentences on why not.

    `sides` has (plain, adapted) for each seed. There is nothing to say where either was scored on no rows
    without labels.
    """
    from tlscale.evaluation.gate import MARGIN, Answers, information_gain

    if not sides or not all(INFOMAX in one.measured for both in sides for one in both):
        return None, ()
    held_out = (labelfree.HELD_OUT, "accuracy")
    if not all(held_out in one.measured for both in sides for one in both):
        return None, (NO_ROWS,)
    found = {suite: _paired(sides, suite) for suite in (labelfree.SUITE, labelfree.HELD_OUT)}
    problems = [f"No label-free gate: {suite}: {p.problem}." for suite, p in found.items() if p.problem]
    if problems:
        return None, tuple(problems)
    classes = sides[0][1].run.plan.facts.labels
    unlabelled, labelled = found[labelfree.SUITE], found[labelfree.HELD_OUT]
    gain = information_gain(
        Answers(labelled.candidate, unlabelled.candidate),
        Answers(labelled.control, unlabelled.control),
        classes,
        level=level,
    )
    return Gate(
        decision=gain.decision,
        effect=gain.interval.effect,
        low=gain.interval.low,
        high=gain.interval.high,
        level=level,
        margin=MARGIN,
        against=against,
        adapted=gain.adapted,
        plain=gain.plain,
        n_labelled=labelled.paired,
        n_unlabelled=unlabelled.paired,
        n_seeds=len(sides),
    ), ()


def _paired(sides: Sides, suite: str) -> Pairing:
    adapted: list[Outcomes] = [one.outcomes(suite) for _, one in sides]
    plain: list[Outcomes] = [one.outcomes(suite) for one, _ in sides]
    return pair(adapted, plain, "accuracy")
