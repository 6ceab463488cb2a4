"""What the probes share: checked inputs, a controlled sample, and a linear classifier on features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from tlscale.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hits = NDArray[np.bool_]
STEPS = 200


def checked(features: Floats, labels: Ints | None = None) -> Floats:
    """`features` [n, d] as float64.

    Raises:
        DataError: not a table of finite numbers, or labels [n] of which there are not two kinds.
    """
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 1 or len(table) < 2:
        raise DataError(f"features of shape {table.shape}; allowed: [rows, dimensions] with 2 rows or more")
    if not np.isfinite(table).all():
        rows = np.flatnonzero(~np.isfinite(table).all(axis=1))[:5].tolist()
        raise DataError(f"features of rows {rows} are not finite; look at what the model gives for them")
    if labels is None:
        return table
    if len(labels) != len(table):
        raise DataError(f"{len(labels)} labels for {len(table)} rows of features; one for each is needed")
    if len(np.unique(labels)) < 2:
        raise DataError("all rows have the same label, so there is nothing to tell apart")
    return table


def grouped(labels: Ints) -> tuple[Ints, Ints]:
    """Labels as 0 .. classes - 1, and how many rows each class has."""
    _, indices, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return indices.astype(np.int64).reshape(-1), counts.astype(np.int64)


def one_hot(labels: Ints, classes: int) -> Floats:
    """[n, classes] of zeros and ones."""
    return np.eye(classes)[labels]


def folds(labels: Ints, count: int, generator: np.random.Generator) -> Ints:
    """A fold number for each row, [n]; each class is spread over the folds as evenly as it goes."""
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    made = np.empty(len(labels), dtype=np.int64)
    made[order] = np.arange(len(labels)) % count
    return made


class Linear:
    """Multinomial logistic regression on standardised features: min sum of losses + |W|^2 / (2 c).

    The intercept is not penalised. Fitted by L-BFGS from zero, so that the same rows give the same model.
    """

    def __init__(self, features: Floats, labels: Ints, classes: int, c: float = 1.0) -> None:
        self._mean = features.mean(axis=0)
        spread = features.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        x, wanted = self._scaled(features), one_hot(labels, classes)
        shape = (x.shape[1] + 1, classes)

        def objective(flat: Floats) -> tuple[float, Floats]:
            weights = flat.reshape(shape)
            scores = x @ weights[:-1] + weights[-1]
            scores -= logsumexp(scores, axis=1, keepdims=True)
            wrong = np.exp(scores) - wanted
            slope = np.vstack([x.T @ wrong + weights[:-1] / c, wrong.sum(axis=0)])
            loss = -(wanted * scores).sum() + (weights[:-1] ** 2).sum() / (2 * c)
            return float(loss), slope.reshape(-1)

        found = minimize(
            objective, np.zeros(shape[0] * classes), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        self.weights: Floats = found.x.reshape(shape)

    def _scaled(self, features: Floats) -> Floats:
        scaled: Floats = (features - self._mean) / self._spread
        return scaled

    def probabilities(self, features: Floats) -> Floats:
        """[n, classes], rows summing to 1."""
        scores = self._scaled(features) @ self.weights[:-1] + self.weights[-1]
        chances: Floats = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
        return chances

    def predict(self, features: Floats) -> Ints:
        """The most probable class of each row."""
        best: Ints = self.probabilities(features).argmax(axis=1).astype(np.int64)
        return best


def held_out_predictions(
    features: Floats, labels: Ints, classes: int, *, parts: int, seed: int, c: float = 1.0
) -> Ints:
    """For each row the class that a linear classifier gives which never saw it (cross-validation)."""
    fold = folds(labels, parts, np.random.default_rng(seed))
    made = np.zeros(len(labels), dtype=np.int64)
    for part in range(parts):
        inside, outside = fold != part, fold == part
        made[outside] = Linear(features[inside], labels[inside], classes, c).predict(features[outside])
    return made
