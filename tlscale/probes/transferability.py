"""How well features suit a task, before any training: one number per (features, labels); higher is better.

All take features [n, d] and labels [n], and change nothing. Scores of different measures are not on one
scale; compare the sources within a column.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from tlscale.errors import DataError
from tlscale.probes.arrays import Floats, Hits, Ints, checked, grouped, one_hot

ROUNDS = 100
TOLERANCE = 1e-8
FLOOR = 1e-12
KEPT_VARIANCE = 0.8
COMPONENTS_PER_CLASS = 5
MIXTURE_ROUNDS = 20
VARIANCE_FLOOR = 1e-6


def logme(features: Floats, labels: Ints) -> float:
    """LogME (You et al. 2021, arXiv:2102.11005): log evidence per row, in nats, averaged over classes.

    Each class is a Bayesian linear regression of its 0/1 indicator on the features; prior precision alpha
    and noise precision beta are set to where the evidence is highest.
    """
    x = checked(features, labels)
    indices, counts = grouped(labels)
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    targets = one_hot(indices, len(counts))
    inside = (left.T @ targets) ** 2
    outside = np.maximum((targets**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    rows, dimensions = x.shape
    found = [
        _evidence(rows, dimensions, singular**2, inside[:, k], float(outside[k]))
        for k in range(len(counts))
    ]
    return float(np.mean(found))


def _evidence(rows: int, dimensions: int, energies: Floats, inside: Floats, outside: float) -> float:
    """Highest log evidence per row of one regression.

    `energies` [r] are squared singular values of the features, `inside` [r] the target's squared
    coordinates along them, and `outside` its squared length beside them.
    """
    alpha, beta = 1.0, 1.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        effective = (energies / (ratio + energies)).sum()
        length = (energies * inside / (ratio + energies) ** 2).sum()
        residual = (ratio**2 * inside / (ratio + energies) ** 2).sum() + outside
        alpha = effective / max(length, FLOOR)
        beta = (rows - effective) / max(residual, FLOOR)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    ratio = alpha / beta
    length = (energies * inside / (ratio + energies) ** 2).sum()
    residual = (ratio**2 * inside / (ratio + energies) ** 2).sum() + outside
    determinant = np.log(alpha + beta * energies).sum() + (dimensions - len(energies)) * np.log(alpha)
    twice = (
        dimensions * np.log(alpha)
        + rows * np.log(beta / (2 * np.pi))
        - beta * residual
        - alpha * length
        - determinant
    )
    return float(twice / (2 * rows))


def h_score(features: Floats, labels: Ints) -> float:
    """H-score (Bao et al. 2019): trace of the inverse covariance times that of the class means.

    With the covariance shrunk as Ledoit and Wolf 2004 do, which it needs where rows are few (Ibrahim
    et al. 2021, arXiv:2110.06893). Between 0 and classes - 1.
    """
    x = checked(features, labels)
    indices, counts = grouped(labels)
    centred = x - x.mean(axis=0)
    shrinkage = ledoit_wolf(centred)
    covariance = centred.T @ centred / len(x)
    identity = np.eye(x.shape[1]) * np.trace(covariance) / x.shape[1]
    shrunk = (1 - shrinkage) * covariance + shrinkage * identity
    means = one_hot(indices, len(counts)).T @ centred / counts[:, None]
    between = (means * counts[:, None]).T @ means / len(x)
    return float(np.trace(np.linalg.pinv(shrunk, hermitian=True) @ ((1 - shrinkage) * between)))


def ledoit_wolf(centred: Floats) -> float:
    """The share of the scaled identity in Ledoit and Wolf's estimate of a covariance; 0 to 1.

    Args:
        centred: Rows [n, d] whose mean is 0.
    """
    rows, dimensions = centred.shape
    covariance = centred.T @ centred / rows
    scale = np.trace(covariance) / dimensions
    squares = centred**2
    spread = ((squares.T @ squares).sum() / rows - (covariance**2).sum()) / rows
    distance = (covariance**2).sum() - dimensions * scale**2
    return float(min(max(spread, 0.0), distance) / distance) if distance > 0 else 0.0


def leep(probabilities: Floats, labels: Ints) -> float:
    """LEEP (Nguyen et al. 2020, arXiv:2002.12462): mean log-likelihood, in nats, at most 0.

    Args:
        probabilities: [n, source classes], what the source's own head says; each row sums to 1.
        labels: [n] of the target task.

    Raises:
        DataError: rows that are no probabilities.
    """
    chances = checked(probabilities, labels)
    if (chances < 0).any() or not np.allclose(chances.sum(axis=1), 1.0, atol=1e-4):
        raise DataError("LEEP needs probabilities: each row at least 0 and summing to 1")
    indices, counts = grouped(labels)
    joint = one_hot(indices, len(counts)).T @ chances / len(labels)
    conditional = joint / np.maximum(joint.sum(axis=0, keepdims=True), FLOOR)
    likelihood = (chances @ conditional.T)[np.arange(len(labels)), indices]
    return float(np.log(np.maximum(likelihood, FLOOR)).mean())


def nleep(features: Floats, labels: Ints, *, seed: int = 0) -> float:
    """N-LEEP (Li et al. 2021, arXiv:2011.11200): LEEP with clusters of the features for source classes.

    Features are reduced to the principal components that keep 80 % of the variance; clusters are a
    Gaussian mixture of five components a class, here with diagonal covariances.
    """
    x = checked(features, labels)
    _, counts = grouped(labels)
    centred = x - x.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(singular**2) / max((singular**2).sum(), FLOOR)
    kept = int(np.searchsorted(share, KEPT_VARIANCE)) + 1
    reduced = left[:, :kept] * singular[:kept]
    components = min(COMPONENTS_PER_CLASS * len(counts), max(2, len(x) // 3))
    return leep(_responsibilities(reduced, components, seed), labels)


def _responsibilities(x: Floats, components: int, seed: int) -> Floats:
    """[n, components]: the chance of each component of a Gaussian mixture fitted to `x` by EM."""
    generator = np.random.default_rng(seed)
    starts = x[generator.permutation(len(x))[:components]]
    squares = (starts**2).sum(axis=1)
    chances = one_hot((squares - 2 * x @ starts.T).argmin(axis=1), components)
    floor = VARIANCE_FLOOR + x.var(axis=0).mean() * 1e-3
    for _ in range(MIXTURE_ROUNDS):
        weights = chances.sum(axis=0) + FLOOR
        means = chances.T @ x / weights[:, None]
        variances = np.maximum(chances.T @ x**2 / weights[:, None] - means**2, floor)
        squares = x**2 @ (1 / variances).T - 2 * x @ (means / variances).T + (means**2 / variances).sum(1)
        scores = np.log(weights / len(x)) - 0.5 * (np.log(2 * np.pi * variances).sum(axis=1) + squares)
        updated = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
        moved = np.abs(updated - chances).max()
        chances = updated
        if moved < 1e-4:
            break
    return chances


def transrate(features: Floats, labels: Ints, *, distortion: float = 1e-4) -> float:
    """TransRate (Huang et al. 2022, arXiv:2106.09207): coding rate of all rows less that within classes.

    As in the paper's listing the features are centred and `distortion` is the squared error that coding
    may leave; classes count by their share of rows.
    """
    x = checked(features, labels)
    indices, counts = grouped(labels)
    centred = x - x.mean(axis=0)
    within = [_coding_rate(centred[indices == k], distortion) for k in range(len(counts))]
    return _coding_rate(centred, distortion) - float(np.average(within, weights=counts))


def _coding_rate(x: Floats, distortion: float) -> float:
    rows, dimensions = x.shape
    inner = x.T @ x if dimensions <= rows else x @ x.T
    _, logarithm = np.linalg.slogdet(np.eye(len(inner)) + inner / (rows * distortion))
    return float(logarithm) / 2


def nearest_neighbours(features: Floats, labels: Ints, *, neighbours: int = 5) -> float:
    """Share of `neighbour_hits`."""
    return float(neighbour_hits(features, labels, neighbours=neighbours).mean())


def neighbour_hits(features: Floats, labels: Ints, *, neighbours: int = 5) -> Hits:
    """Whether a vote among the most similar other rows, by cosine, gives each row's label: bool [n].

    Of classes with as many votes, the one whose voters are more similar wins.
    """
    x = checked(features, labels)
    indices, counts = grouped(labels)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), FLOOR)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    most = min(neighbours, len(x) - 1)
    nearest = np.argpartition(-similar, most - 1, axis=1)[:, :most]
    votes = np.zeros((len(x), len(counts)))
    # similarity is at most 1, so a hundredth of it orders ties and nothing else
    worth = 1.0 + 0.01 * np.take_along_axis(similar, nearest, axis=1)
    np.add.at(votes, (np.arange(len(x))[:, None], indices[nearest]), worth)
    hits: Hits = votes.argmax(axis=1) == indices
    return hits


def linear_accuracy(features: Floats, labels: Ints) -> float:
    """Share of `linear_hits`."""
    return float(linear_hits(features, labels).mean())


def linear_hits(features: Floats, labels: Ints) -> Hits:
    """Whether ridge regression on class indicators, a stand-in for a linear head, gives each row's label.

    Each row is left out of what it is judged by: bool [n].
    Exact for every row without fitting anew (the hat matrix tells). The penalty is the one of seven over
    six decades whose leave-one-out squared error is lowest; the intercept is not penalised.
    """
    x = checked(features, labels)
    indices, counts = grouped(labels)
    left, singular, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    targets = one_hot(indices, len(counts))
    centred = targets - targets.mean(axis=0)
    energies = singular**2
    best, hits = np.inf, np.zeros(len(x), dtype=np.bool_)
    for penalty in np.logspace(-4, 2, 7) * energies.mean():
        kept = energies / (energies + penalty)
        fitted = left @ (kept[:, None] * (left.T @ centred)) + targets.mean(axis=0)
        leverage = (left**2 * kept).sum(axis=1) + 1 / len(x)
        alone = targets - (targets - fitted) / np.maximum(1 - leverage, FLOOR)[:, None]
        error = ((targets - alone) ** 2).mean()
        if error < best:
            best, hits = error, alone.argmax(axis=1) == indices
    return hits


MEASURES = {
    "logme": logme,
    "h_score": h_score,
    "nleep": nleep,
    "transrate": transrate,
    "knn": nearest_neighbours,
    "linear": linear_accuracy,
}
"""What `tlscale probe` computes for every source, by the name of its column."""
