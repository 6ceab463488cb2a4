"""What says how good a classifier is on rows whose labels nobody knows, from its own probabilities alone.

Of several models of one task, the one that a measure prefers is chosen without a look at a label of the
target domain (Musgrave et al. 2022, arXiv:2208.07360, compare them). Each takes stored outcomes whose
`scores` are log-probabilities of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlscale.evaluation.types import Outcome

SUITE = "unlabelled"
HELD_OUT = "validation"  # labelled rows of the training domain, which say how much to trust a confidence
MEASURES = ("infomax", "entropy", "snd")
SHARPNESS = 0.05
ROWS_AT_ONCE = 1024
TINY = 1e-30


def entropy(outcomes: Sequence[Outcome]) -> tuple[float, float | None]:
    """Mean entropy of the answers in nats, lower is better (Morerio et al. 2018, arXiv:1711.10288)."""
    import numpy as np

    each = _entropies(_chances(outcomes))
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else None
    return float(each.mean()), error


def infomax(outcomes: Sequence[Outcome]) -> tuple[float, float | None]:
    """Entropy of the mean answer less the mean entropy, in nats: sure of each row, and varied over rows.

    The mutual information of rows and answers (Bridle et al. 1991; Shi and Sha 2012, arXiv:1206.6438).
    """
    chances = _chances(outcomes)
    return float(_entropies(chances.mean(axis=0, keepdims=True))[0] - _entropies(chances).mean()), None


def snd(outcomes: Sequence[Outcome]) -> tuple[float, float | None]:
    """Soft neighbourhood density, in nats (Saito et al. 2021, arXiv:2108.10860).

    The mean entropy of each row's similarity to all others, sharpened by a temperature of 0.05: high where
    rows that are answered alike have many close neighbours. Not a number for a single row.
    """
    import numpy as np

    chances = _chances(outcomes)
    unit = chances / np.linalg.norm(chances, axis=1, keepdims=True)
    if len(unit) == 1:
        return float("nan"), None
    total = 0.0
    for start in range(0, len(unit), ROWS_AT_ONCE):
        near = unit[start : start + ROWS_AT_ONCE] @ unit.T / SHARPNESS
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        soft = np.exp(near - near.max(axis=1, keepdims=True))
        total += float(_entropies(soft / soft.sum(axis=1, keepdims=True)).sum())
    return total / len(unit), None


def _chances(outcomes: Sequence[Outcome]) -> Any:
    """Probabilities, float64 [rows, classes]."""
    import numpy as np

    return np.exp(np.array([outcome.scores for outcome in outcomes], dtype=np.float64))


def _entropies(chances: Any) -> Any:
    """Of each row of probabilities, in nats; [rows, n] -> [rows]."""
    import numpy as np

    return -(chances * np.log(np.maximum(chances, TINY))).sum(axis=1)
