"""How far two samples of features are apart: shift between domains, with a null where chance matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from tlscale.probes.arrays import Floats, Ints, Linear, checked, held_out_predictions

PARTS = 5


@dataclass(frozen=True)
class TwoSample:
    """A statistic, and how often chance alone gives one at least as large."""

    value: float
    p: float


def classifier_two_sample(one: Floats, other: Floats, *, seed: int = 0) -> TwoSample:
    """Held-out accuracy of telling the samples apart (Lopez-Paz and Oquab 2017, arXiv:1610.06545).

    The larger sample is thinned to the size of the smaller, so that chance is 0.5; `p` is the binomial
    tail. Half the rows are held out: unlike folds, they are judged by one classifier, and independent.
    """
    x, domain = _balanced(one, other, seed)
    order = np.random.default_rng(seed).permutation(len(x))
    half = len(x) // 2
    train, test = order[:half], order[half:]
    right = int((Linear(x[train], domain[train], 2).predict(x[test]) == domain[test]).sum())
    return TwoSample(right / len(test), float(binom.sf(right - 1, len(test), 0.5)))


def proxy_a_distance(one: Floats, other: Floats, *, seed: int = 0) -> float:
    """Proxy A-distance 2 (1 - 2 error), by a linear classifier's held-out error (Ben-David et al. 2007).

    0 where the samples can't be told apart (chance may give a little less), 2 where always.
    """
    x, domain = _balanced(one, other, seed)
    guessed = held_out_predictions(x, domain, 2, parts=PARTS, seed=seed)
    return float(2 * (1 - 2 * (guessed != domain).mean()))


def maximum_mean_discrepancy(
    one: Floats, other: Floats, *, permutations: int = 200, seed: int = 0
) -> TwoSample:
    """Unbiased squared MMD with a Gaussian kernel (Gretton et al. 2012), and its permutation p.

    The kernel's width is the median distance between rows of both samples together.
    """
    x, y = checked(one), checked(other)
    both = np.vstack([x, y])
    squares = (both**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * both @ both.T, 0.0)
    width = np.median(distances[np.triu_indices(len(both), 1)])
    kernel = np.exp(-distances / max(width, 1e-12))
    np.fill_diagonal(kernel, 0.0)
    found = _discrepancy(kernel, np.arange(len(both)), len(x))
    generator = np.random.default_rng(seed)
    null = [_discrepancy(kernel, generator.permutation(len(both)), len(x)) for _ in range(permutations)]
    above = sum(value >= found for value in null)
    return TwoSample(found, (1 + above) / (1 + permutations))


def _discrepancy(kernel: Floats, order: Ints, first: int) -> float:
    """Squared MMD of the first `first` rows of `order` against the rest; `kernel` has a zero diagonal."""
    sign = np.zeros(len(order))
    sign[order[:first]] = 1.0
    inside = kernel @ sign
    second = len(order) - first
    xx, total = sign @ inside, kernel.sum()
    xy = inside.sum() - xx
    yy = total - xx - 2 * xy
    return float(xx / (first * (first - 1)) + yy / (second * (second - 1)) - 2 * xy / (first * second))


def coral_distance(one: Floats, other: Floats) -> float:
    """Squared distance of the covariances over 4 d^2 (Sun and Saenko 2016, arXiv:1607.01719)."""
    x, y = checked(one), checked(other)
    difference = np.cov(x, rowvar=False) - np.cov(y, rowvar=False)
    return float((np.atleast_2d(difference) ** 2).sum() / (4 * x.shape[1] ** 2))


def _balanced(one: Floats, other: Floats, seed: int) -> tuple[Floats, Ints]:
    """As many rows of each sample, and which sample each is from."""
    x, y = checked(one), checked(other)
    rows = min(len(x), len(y))
    generator = np.random.default_rng(seed)
    chosen = [sample[generator.permutation(len(sample))[:rows]] for sample in (x, y)]
    return np.vstack(chosen), np.repeat(np.arange(2), rows)
