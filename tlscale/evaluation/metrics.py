"""Metrics over stored outcomes: pure, torch-free, one function each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from tlscale.evaluation.labelfree import entropy, infomax, snd
from tlscale.evaluation.types import RIGHT, Outcome

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
    return _per_token([o.nll or 0.0 for o in outcomes], outcomes)


def token_accuracy(outcomes: Sequence[Outcome]) -> Scored:
    """Share of the scored tokens whose most probable answer is right; error of the ratio over examples."""
    return _per_token([(o.values or {})[RIGHT] for o in outcomes], outcomes)


def _per_token(sums: Sequence[float], outcomes: Sequence[Outcome]) -> Scored:
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


def mean(name: str) -> Callable[[Sequence[Outcome]], Scored]:
    """The mean of one value over the items that have it, with its standard error."""

    def of(outcomes: Sequence[Outcome]) -> Scored:
        found = [o.values[name] for o in outcomes if o.values and name in o.values]
        if not found:
            return math.nan, None
        middle = sum(found) / len(found)
        if len(found) == 1:
            return middle, None
        spread = sum((value - middle) ** 2 for value in found) / (len(found) - 1)
        return middle, math.sqrt(spread / len(found))

    return of


def per(unit: str, *, power: bool) -> Callable[[Sequence[Outcome]], Scored]:
    """Negative log-likelihood over words or bytes: its exponential, or in bits."""

    def of(outcomes: Sequence[Outcome]) -> Scored:
        sizes = sum((o.values or {}).get(unit, 0.0) for o in outcomes)
        middle = sum(o.nll or 0.0 for o in outcomes) / sizes if sizes else math.nan
        return (math.exp(min(middle, 700.0)) if power else middle / math.log(2)), None

    return of


def auroc(outcomes: Sequence[Outcome]) -> Scored:
    """How well `confidence` tells items with `positive` 1 from those with 0 (Hanley and McNeil 1982)."""
    pairs = sorted(
        (o.values["confidence"], o.values["positive"])
        for o in outcomes
        if o.values and "positive" in o.values
    )
    positives = sum(positive == 1 for _, positive in pairs)
    negatives = len(pairs) - positives
    if not positives or not negatives:
        return math.nan, None
    ranks, start = 0.0, 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and pairs[end][0] == pairs[start][0]:
            end += 1
        ranks += (start + end + 1) / 2 * sum(positive == 1 for _, positive in pairs[start:end])
        start = end
    area = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return area, math.sqrt(max(0.0, spread) / (positives * negatives))


def oos_recall(outcomes: Sequence[Outcome]) -> Scored:
    """Share of out-of-scope items refused by the confidence that 95 % of those in scope reach.

    Items in scope have `positive` 1 (Larson et al. 2019; the threshold as in Hendrycks and Gimpel 2017).
    """
    by_scope: dict[float, list[float]] = {0.0: [], 1.0: []}
    for outcome in outcomes:
        values = outcome.values or {}
        by_scope[values["positive"]].append(values["confidence"])
    if not by_scope[0.0] or not by_scope[1.0]:
        return math.nan, None
    threshold = sorted(by_scope[1.0])[int(len(by_scope[1.0]) * 0.05)]
    n = len(by_scope[0.0])
    share = sum(sure < threshold for sure in by_scope[0.0]) / n
    return share, math.sqrt(share * (1 - share) / n)


def stereotype_gap(outcomes: Sequence[Outcome]) -> Scored:
    """Accuracy where the right answer is the stereotype, less that where it is not (Zhao et al. 2018)."""
    (pro, one), (anti, two) = mean("acc_pro")(outcomes), mean("acc_anti")(outcomes)
    return pro - anti, None if one is None or two is None else math.hypot(one, two)


def ece(confidence: str) -> Callable[[Sequence[Outcome]], Scored]:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015)."""

    def of(outcomes: Sequence[Outcome]) -> Scored:
        bins: dict[int, float] = {}
        for outcome in outcomes:
            values = outcome.values or {}
            sure = values[confidence]
            at = min(BINS - 1, int(sure * BINS))
            bins[at] = bins.get(at, 0.0) + values["acc"] - sure
        return sum(abs(gap) for gap in bins.values()) / len(outcomes), None

    return of


def metric(name: str) -> Callable[[Sequence[Outcome]], Scored]:
    """The metric called `name`; one that isn't known is the mean of the items' own values of that name.

    `NAME_clean` is NAME over the items that the training data doesn't hold.
    """
    if name.endswith(CLEAN):
        return clean(metric(name.removesuffix(CLEAN)))
    return METRICS.get(name) or mean(name)


def clean(of: Callable[[Sequence[Outcome]], Scored]) -> Callable[[Sequence[Outcome]], Scored]:
    """`of` over the items that are not contaminated; not a number where none is left."""

    def over_clean(outcomes: Sequence[Outcome]) -> Scored:
        left = [o for o in outcomes if not (o.values or {}).get("contaminated")]
        return of(left) if left else (math.nan, None)

    return over_clean


BINS, CLEAN = 15, "_clean"
METRICS: dict[str, Callable[[Sequence[Outcome]], Scored]] = {
    "accuracy": accuracy,
    "exact_match": accuracy,
    "f1_macro": f1_macro,
    "nll": nll,
    "perplexity": perplexity,
    "token_accuracy": token_accuracy,
    "word_perplexity": per("words", power=True),
    "byte_perplexity": per("bytes", power=True),
    "bits_per_byte": per("bytes", power=False),
    "auroc": auroc,
    "oos_recall": oos_recall,
    "stereotype_gap": stereotype_gap,
    "ece": ece("confidence"),
    "ece_temperature": ece("confidence_temperature"),
    "infomax": infomax,
    "entropy": entropy,
    "snd": snd,
}

DEFAULTS: dict[str, tuple[str, ...]] = {
    "causal-lm": ("nll", "perplexity"),
    "masked-lm": ("nll", "perplexity", "token_accuracy"),
    "sequence-classification": ("accuracy", "f1_macro", "nll"),
    "image-classification": ("accuracy", "f1_macro", "nll"),
    "audio-classification": ("accuracy", "f1_macro", "nll"),
    "sentence-embedding": ("accuracy",),
}
