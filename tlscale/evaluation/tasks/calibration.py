"""Calibrations that look at all items of a task at once. Pure.

Contextual calibration and pointwise mutual information ask more of the model for each item, and are made
where the item is judged; these two need no further answers for the items themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tlscale.evaluation.tasks.outcome import best, probabilities
from tlscale.evaluation.types import Outcome

_COLDEST, _HOTTEST, _STEPS = math.log(0.05), math.log(50.0), 60


def batch(outcomes: Sequence[Outcome], right: Sequence[Sequence[int]]) -> list[Outcome]:
    """Adds `acc_batch`: probabilities over their mean of all items (Zhou et al. 2023, arXiv:2309.17249).

    Only for items that share their choices; `right` has the indices of each item's right ones.
    """
    each = [probabilities(o.scores or ()) for o in outcomes]
    mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
    found = []
    for outcome, answers in zip(outcomes, right, strict=True):
        scores = [s - math.log(max(m, 1e-300)) for s, m in zip(outcome.scores or (), mean, strict=True)]
        found.append(_with(outcome, "acc_batch", float(best(scores) in answers)))
    return found


def temperature(scores: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    """The temperature under which `right` is most likely (Guo et al. 2017, arXiv:1706.04599).

    Found by a golden-section search over its logarithm, between 0.05 and 50.
    """

    def loss(log_t: float) -> float:
        return sum(_nll(s, at, math.exp(log_t)) for s, at in zip(scores, right, strict=True))

    low, high = _COLDEST, _HOTTEST
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, middle = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(middle):
            high = middle
        else:
            low = left
    return math.exp((low + high) / 2)


def tempered(outcomes: Sequence[Outcome], right: Sequence[int], at: float) -> list[Outcome]:
    """Adds `nll_temperature`, `confidence` and `confidence_temperature`, those of the chosen answer."""
    found = []
    for outcome, answer in zip(outcomes, right, strict=True):
        scores = outcome.scores or ()
        one = _with(outcome, "nll_temperature", _nll(scores, answer, at))
        one = _with(one, "confidence", max(probabilities(scores)))
        found.append(_with(one, "confidence_temperature", max(probabilities([s / at for s in scores]))))
    return found


def _nll(scores: Sequence[float], right: int, at: float) -> float:
    return -math.log(max(probabilities([s / at for s in scores])[right], 1e-300))


def _with(outcome: Outcome, name: str, value: float) -> Outcome:
    return outcome.model_copy(update={"values": {**(outcome.values or {}), name: value}})
