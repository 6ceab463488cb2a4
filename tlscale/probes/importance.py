"""How much each training row counts for another domain: label shift and covariate shift, on arrays alone.

Under covariate shift p(y|x) is one and p(x) differs: a row counts p_target / p_source (Shimodaira 2000).
Under label shift p(x|y) is one and p(y) differs: a row counts by its class alone (Lipton et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlscale.errors import DataError
from tlscale.probes.arrays import Floats, Ints, Linear, checked, folds

PARTS = 5
TINY = 1e-6


def class_weights(chances: Floats, labels: Ints, target: Floats, names: Sequence[str]) -> Floats:
    """How much more often each class is in the target: [classes], 0 or more.

    Black box shift estimation (Lipton et al. 2018, arXiv:1802.03916) solves C w = mu: C[i, j] is the share
    of held-out source rows that are said to be i and are j, and mu[i] that of target rows said to be i.
    Negative weights become 0.

    Args:
        chances: What a classifier says of held-out source rows, [rows, classes]: its answers as ones and
            zeros, or its probabilities.
        labels: The right classes of those rows, [rows].
        target: What it says of target rows, [rows, classes].
        names: Of the classes, for the message.

    Raises:
        DataError: the classifier's answers don't tell the classes apart, so many weights would do.
    """
    classes = chances.shape[1]
    confusion = chances.T @ np.eye(classes)[labels] / len(labels)
    if np.linalg.matrix_rank(confusion) < classes:
        absent = [names[j] for j in np.flatnonzero(confusion.sum(axis=0) == 0)[:5]]
        unsaid = [names[i] for i in np.flatnonzero(confusion.sum(axis=1) == 0)[:5]]
        why = f"no row is of {', '.join(absent)}" if absent else "it takes classes for each other"
        why = f"it never answers {', '.join(unsaid)}" if unsaid and not absent else why
        raise DataError(
            f"label shift can't be estimated on the {len(labels):,} validation rows: {why}; give more of "
            "every class, or set train.importance.soft: true"
        )
    found: Floats = np.clip(np.linalg.solve(confusion, target.mean(axis=0)), 0.0, None)
    return found


def density_ratio(source: Floats, target: Floats, *, seed: int) -> Floats:
    """p_target(x) / p_source(x) of each row of `source` [n, d], as a classifier tells the samples apart.

    By logistic regression on rows of both (Bickel et al. 2009), each fifth of the source judged by one that
    never saw it: the ratio is the odds of being a target row, times n_source / n_target.
    """
    x = np.vstack([checked(source), checked(target)])
    domain = np.repeat(np.arange(2), [len(source), len(target)])
    fold = folds(domain, PARTS, np.random.default_rng(seed))
    odds = np.zeros(len(source))
    for part in range(PARTS):
        known, judged = fold != part, np.flatnonzero(fold[: len(source)] == part)
        chance = Linear(x[known], domain[known], 2).probabilities(source[judged])
        odds[judged] = chance[:, 1] / np.maximum(chance[:, 0], TINY)
    return odds * len(source) / len(target)


def settled(weights: Floats, *, strength: float, most: float) -> Floats:
    """Weights to the power `strength` (Shimodaira 2000), at most `most`, and 1 on average: [rows].

    Raises:
        DataError: all of them are 0.
    """
    if not weights.any():
        raise DataError("every training row would count for nothing: data.unlabelled is of other classes")
    flat = np.where(weights > 0, weights, 0.0) ** strength
    cut = np.minimum(flat / flat.mean(), most)
    found: Floats = cut / cut.mean()
    return found


def effective_rows(weights: Floats) -> float:
    """How many equal rows would give an average as sure as these do: (sum w)^2 / sum w^2 (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
