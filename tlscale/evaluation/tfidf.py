"""Words counted and weighed, and logistic regression on them: what no pretraining at all can do.

The weights are those of Salton and Buckley 1988 as scikit-learn has them (smoothed inverse document
frequency, rows of length 1, words of two or more letters); the classifier is multinomial with an L2
penalty.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WORD = re.compile(r"(?u)\b\w\w+\b")
STRENGTHS = (1.0, 10.0, 100.0)
HELD_OUT = 5
ITERATIONS = 200


@dataclass(frozen=True)
class Tfidf:
    """A vocabulary with the weight of each word; words it doesn't have are left out."""

    words: dict[str, int]
    weights: Floats

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Tfidf:
        """The words of `texts`, weighed by how few of them have each."""
        having = Counter(word for text in texts for word in set(words(text)))
        known = {word: index for index, word in enumerate(sorted(having))}
        counts = np.array([having[word] for word in known], dtype=np.float64)
        return cls(known, np.log((1 + len(texts)) / (1 + counts)) + 1)

    def __call__(self, texts: Sequence[str]) -> Any:
        """A sparse matrix [texts, words], its rows of length 1 or empty."""
        places, columns, values = [0], [], []
        for text in texts:
            found = Counter(word for word in words(text) if word in self.words)
            at = [self.words[word] for word in found]
            row = np.array(list(found.values()), dtype=np.float64) * self.weights[at]
            columns += at
            values += (row / (np.linalg.norm(row) or 1.0)).tolist()
            places.append(len(columns))
        return sparse.csr_matrix((values, columns, places), shape=(len(texts), len(self.words)))


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Logistic:
    """A linear classifier: `weights` [features, classes], `bias` [classes]."""

    weights: Floats
    bias: Floats

    def __call__(self, features: Any) -> Floats:
        """Log-probabilities [rows, classes]."""
        return _log_softmax(np.asarray(features @ self.weights) + self.bias)


def logistic(features: Any, labels: Ints, classes: int, *, strength: float) -> Logistic:
    """Minimizes `strength` times the summed loss plus half the squared weights, by L-BFGS.

    Args:
        features: [rows, features], sparse or not.
        labels: [rows], from 0 on.
        classes: How many there are, among them some that no row may have.
        strength: The larger, the less the weights are held down (`C` in scikit-learn).
    """
    rows, width = features.shape
    truth = np.zeros((rows, classes))
    truth[np.arange(rows), labels] = 1.0
    # divided by strength x rows, so that the tolerance means the same for any number of rows
    scale, penalty = 1.0 / rows, 1.0 / (strength * rows)
    turned = features.T.tocsr() if sparse.issparse(features) else features.T

    def cost(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
        logs = _log_softmax(np.asarray(features @ weights) + bias)
        wrong = np.exp(logs) - truth
        slope = np.asarray(turned @ wrong) * scale + penalty * weights
        value = -float((logs * truth).sum()) * scale + 0.5 * penalty * float((weights**2).sum())
        return value, np.concatenate([slope.ravel(), wrong.sum(axis=0) * scale])

    found = optimize.minimize(
        cost, np.zeros(width * classes + classes), jac=True, method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "gtol": 1e-6},
    ).x  # fmt: skip
    return Logistic(found[:-classes].reshape(width, classes), found[-classes:])


def chosen_strength(texts: Sequence[str], labels: Ints, classes: int, *, seed: int) -> float | None:
    """The best of `STRENGTHS` on a fifth of the rows held out; `None` where that is too few to tell."""
    if len(texts) < 2 * HELD_OUT * max(2, len(set(labels.tolist()))) // 2:
        return None
    order = np.random.default_rng(seed).permutation(len(texts))
    held, kept = order[::HELD_OUT], np.delete(order, np.s_[::HELD_OUT])
    made = Tfidf.fit([texts[int(i)] for i in kept])
    seen, unseen = (made([texts[int(i)] for i in part]) for part in (kept, held))
    shares = []
    for strength in STRENGTHS:
        model = logistic(seen, labels[kept], classes, strength=strength)
        shares.append(float((model(unseen).argmax(axis=1) == labels[held]).mean()))
    return STRENGTHS[int(np.argmax(shares))]


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    made: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return made
