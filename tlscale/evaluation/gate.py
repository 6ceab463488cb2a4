"""Whether an adaptation to rows without labels is to be kept, said without a look at a label of theirs.

Each model's answers are first made as sure as they deserve: by one temperature, fitted to labelled rows
that were held out of its training (Guo et al. 2017, arXiv:1706.04599). Then the mutual information of rows
and answers (Bridle et al. 1991) says how much the answers tell of the rows without labels. Uncalibrated, it
would reward confidence with nothing behind it: a model of shuffled labels is sure of itself too.
Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlscale.evaluation.stats import Floats, Interval
from tlscale.evaluation.types import Outcome

Decision = Literal["keep", "refuse", "undecided"]
Outcomes = Sequence[Sequence[Outcome]]

MARGIN = 0.01  # nats; around 70 % of two classes this is about a point of accuracy
DRAWS = 500
CELLS_AT_ONCE = 2_000_000
TEMPERATURES = np.geomspace(0.2, 20.0, 70)
TINY = 1e-30


@dataclass(frozen=True)
class Answers:
    """One arm's outcomes, [seeds][rows], whose `scores` are log-probabilities of all classes.

    `labelled` are held-out rows of the domain that was learned; the right answer is their `reference`.
    """

    labelled: Outcomes
    unlabelled: Outcomes


@dataclass(frozen=True)
class Gain:
    """The calibrated information of both arms on the rows without labels, in nats, and the difference."""

    adapted: float
    plain: float
    interval: Interval

    @property
    def decision(self) -> Decision:
        """`keep` where more information is sure and above the margin, `refuse` where as much less is."""
        if self.interval.low > 0 and self.interval.effect > MARGIN:
            return "keep"
        return "refuse" if self.interval.high < 0 and self.interval.effect < -MARGIN else "undecided"


def information_gain(
    adapted: Answers, plain: Answers, classes: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> Gain:
    """What adapting changed of the calibrated information, with an interval for new rows and new seeds.

    Labelled and unlabelled rows are resampled, the temperatures fitted again each time; the spread
    between seeds widens the interval. Both arms have the same rows in the same order.

    Args:
        classes: The class of each of an outcome's scores.
    """
    sides = [
        [_Calibrated(labelled, unlabelled, classes) for labelled, unlabelled in _seeds(answers)]
        for answers in (adapted, plain)
    ]
    known, met = len(adapted.labelled[0]), len(adapted.unlabelled[0])
    whole = np.full((1, known), 1 / known), np.full((1, met), 1 / met)
    values = np.array([[float(one.information(*whole)[0]) for one in side] for side in sides])
    random = np.random.default_rng(seed)
    differences = values[0] - values[1]
    deviations = _drawn(sides, known, met, random) - differences.mean()
    count = len(differences)
    if count > 1:
        between = float(differences.std(ddof=1)) / math.sqrt(count)
        deviations = deviations + between * random.standard_t(count - 1, DRAWS)
    low, high = differences.mean() + np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
    found = Interval(float(differences.mean()), float(low), float(high), level, float(deviations.std()))
    return Gain(float(values[0].mean()), float(values[1].mean()), found)


def _seeds(answers: Answers) -> zip[tuple[Sequence[Outcome], Sequence[Outcome]]]:
    return zip(answers.labelled, answers.unlabelled, strict=True)


def _drawn(
    sides: Sequence[Sequence[_Calibrated]], known: int, met: int, random: np.random.Generator
) -> Floats:
    """The difference of the sides on rows drawn with replacement, the same for all of them: [draws]."""
    found, size = [], max(1, CELLS_AT_ONCE // max(known, met))
    for start in range(0, DRAWS, size):
        draws = min(size, DRAWS - start)
        shares = [random.multinomial(n, np.full(n, 1 / n), draws) / n for n in (known, met)]
        told = [np.mean([one.information(*shares) for one in side], axis=0) for side in sides]
        found.append(told[0] - told[1])
    return np.concatenate(found)


class _Calibrated:
    """One arm of one seed, ready to be weighed by any rows."""

    def __init__(
        self, labelled: Sequence[Outcome], unlabelled: Sequence[Outcome], classes: Sequence[str]
    ) -> None:
        number = {name: at for at, name in enumerate(classes)}
        right = np.array([number[one.reference or ""] for one in labelled])
        known = _scores(labelled)
        self._met = _scores(unlabelled)
        rows = np.arange(len(right))
        self._losses = np.stack([-_softened(known, t)[rows, right] for t in TEMPERATURES], axis=1)

    def information(self, known: Floats, met: Floats) -> Floats:
        """In nats, for shares of the labelled [draws, rows] and the unlabelled rows: [draws]."""
        chosen = (known @ self._losses).argmin(axis=1)
        found = np.empty(len(chosen))
        for at in np.unique(chosen):
            draws = chosen == at
            chances = np.exp(_softened(self._met, TEMPERATURES[at]))
            found[draws] = _entropies(met[draws] @ chances) - met[draws] @ _entropies(chances)
        return found


def _scores(outcomes: Sequence[Outcome]) -> Floats:
    return np.array([one.scores for one in outcomes], dtype=np.float64)


def _softened(scores: Floats, temperature: float) -> Floats:
    """Log-probabilities at a temperature, [rows, classes]."""
    divided = scores / temperature
    divided = divided - divided.max(axis=1, keepdims=True)
    softened: Floats = divided - np.log(np.exp(divided).sum(axis=1, keepdims=True))
    return softened


def _entropies(chances: Floats) -> Floats:
    """Of each row of probabilities, in nats; [rows, n] -> [rows]."""
    found: Floats = -(chances * np.log(np.maximum(chances, TINY))).sum(axis=1)
    return found
