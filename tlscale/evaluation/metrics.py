"""Metrics over stored outcomes: pure, torch-free, one function each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from tlscale.evaluation.types import Outcome

Scored = tuple[float, float | None]


def accuracy(outcomes: Sequence[Outcome]) -> Scored:
    """Share of right answers, with the binomial standard error."""
    n = len(outcomes)
    share = sum(o.correct for o in outcomes) / n
    return share, math.sqrt(share * (1 - share) / n)


def f1_macro(outcomes: Sequence[Outcome]) -> Scored:
    """Unweighted mean of the per-class F1 over classes that occur as reference or prediction."""
    right = Counter(o.reference for o in outcomes if o.correct)
    wanted = Counter(o.reference for o in outcomes)
    given = Counter(o.prediction for o in outcomes)
    classes = wanted.keys() | given.keys()
    return sum(2 * right[c] / (wanted[c] + given[c]) for c in classes) / len(classes), None


def nll(outcomes: Sequence[Outcome]) -> Scored:
    """Mean negative log-likelihood per token in nats; standard error of the ratio over examples."""
    sums = [o.nll or 0.0 for o in outcomes]
    tokens = sum(o.tokens for o in outcomes)
    mean = sum(sums) / tokens
    n = len(outcomes)
    spread = sum((s - mean * o.tokens) ** 2 for s, o in zip(sums, outcomes, strict=True))
    error = math.sqrt(spread * n / (n - 1)) / tokens if n > 1 else None
    return mean, error


def perplexity(outcomes: Sequence[Outcome]) -> Scored:
    """exp of the mean negative log-likelihood per token."""
    mean, error = nll(outcomes)
    value = math.exp(min(mean, 700.0))
    return value, None if error is None else value * error


METRICS: dict[str, Callable[[Sequence[Outcome]], Scored]] = {
    "accuracy": accuracy,
    "exact_match": accuracy,
    "f1_macro": f1_macro,
    "nll": nll,
    "perplexity": perplexity,
}

DEFAULTS: dict[str, tuple[str, ...]] = {
    "causal-lm": ("nll", "perplexity"),
    "sequence-classification": ("accuracy", "f1_macro", "nll"),
    "image-classification": ("accuracy", "f1_macro", "nll"),
    "sentence-embedding": ("accuracy",),
}
