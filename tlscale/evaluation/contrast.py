"""Stored outcomes of two arms on the same items -> the improvement, with everything said about it.

Free of torch. The caller pairs the items; outcomes come as one sequence for each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlscale.evaluation import stats
from tlscale.evaluation.stats import Effect, Floats
from tlscale.evaluation.types import HIGHER_IS_BETTER, RIGHT, Outcome

RIGHT_OR_WRONG = ("accuracy", "exact_match")
# What a negative log-likelihood is divided by, and whether its exponential is taken.
SIZES = {"word_perplexity": "words", "byte_perplexity": "bytes", "bits_per_byte": "bytes"}
LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Contrasted:
    """The improvement of a candidate over a control, in the metric's unit; positive is better.

    `p_value` is two-sided, for no difference; `p_margin` that of the two one-sided tests, for a difference
    of at least the margin.
    """

    effect: float
    low: float
    high: float
    smallest_detectable: float
    p_value: float
    p_margin: float
    n_items: int
    n_seeds: int
    method: str


def contrast(
    candidate: Sequence[Sequence[Outcome]],
    control: Sequence[Sequence[Outcome]],
    metric: str,
    *,
    level: float = 0.95,
    margin: float = 0.005,
    seed: int = 0,
    draws: int = stats.DRAWS,
) -> Contrasted:
    """Compares two arms over seeds and items; outcome i of every sequence is of the same item.

    Right-or-wrong metrics get one imagined pair each way, so that few or no discordant pairs aren't taken
    for certainty (Bonett and Price 2012); for one seed their p-value is McNemar's.

    Raises:
        ValueError: fewer than two items, or a likelihood is not finite.
    """
    features, of = _statistic(candidate, control, metric)
    seeds, items, _ = features.shape
    binary = _is_right_or_wrong((*candidate, *control), metric)
    effect = float(of(features.sum(axis=1)).mean())
    judged, how = features, of
    if binary:
        judged = np.concatenate([features, np.broadcast_to(np.eye(2), (seeds, 2, 2))], axis=1)
        how = _share(items + 2)
    resampled = stats.resample(judged, how, seed=seed, draws=draws)
    interval = stats.interval(resampled, level)
    p_value = stats.p_two_sided(resampled)
    if binary and seeds == 1:
        better = features[0, :, 0] - features[0, :, 1]
        p_value = stats.mcnemar_exact(int((better > 0).sum()), int((better < 0).sum()))
    return Contrasted(
        effect=effect,
        low=min(interval.low, effect),
        high=max(interval.high, effect),
        smallest_detectable=stats.smallest_detectable(resampled.stderr, df=resampled.df, level=level),
        p_value=p_value,
        p_margin=stats.tost(resampled, margin),
        n_items=items,
        n_seeds=seeds,
        method=_method(binary, seeds, items, draws),
    )


def _method(binary: bool, seeds: int, items: int, draws: int) -> str:
    over = f"{items:,} paired items" if seeds == 1 else f"{seeds} seeds and {items:,} paired items"
    text = f"bootstrap over {over}, {draws:,} draws"
    if seeds > 1:
        return f"Hierarchical {text}, with Student's t for the spread between seeds."
    test = "; exact McNemar test" if binary else ""
    return f"BCa {text}{test}; one seed, so the spread between seeds is not in the interval."


def _statistic(
    candidate: Sequence[Sequence[Outcome]], control: Sequence[Sequence[Outcome]], metric: str
) -> tuple[Floats, Effect]:
    """Features [seeds, items, k] whose sums over items tell the improvement, and how."""
    if _is_right_or_wrong((*candidate, *control), metric):
        right = [
            np.asarray([[_right(o, metric) for o in seed] for seed in arm]) for arm in (candidate, control)
        ]
        return np.stack(right, axis=-1), _share(len(candidate[0]))
    if metric in ("nll", "perplexity"):
        parts = [_likelihoods(arm) for arm in (candidate, control)]
        return np.concatenate(parts, axis=-1), _nll if metric == "nll" else _perplexity
    if metric == "token_accuracy":
        parts = [_right_tokens(arm) for arm in (candidate, control)]
        return np.concatenate(parts, axis=-1), _token_share
    if metric in SIZES:
        parts = [_likelihoods(arm, SIZES[metric]) for arm in (candidate, control)]
        return np.concatenate(parts, axis=-1), _bits if metric == "bits_per_byte" else _perplexity
    if metric != "f1_macro":
        parts = [_means(arm, metric) for arm in (candidate, control)]
        return np.concatenate(parts, axis=-1), _lower if HIGHER_IS_BETTER.get(metric) is False else _higher
    names = sorted({n or "" for arm in (candidate, control) for s in arm for o in s for n in _names(o)})
    parts = [_classes(arm, names) for arm in (candidate, control)]
    return np.concatenate(parts, axis=-1), _f1_of(len(names))


def _is_right_or_wrong(arms: Sequence[Sequence[Outcome]], metric: str) -> bool:
    """Whether every item is either right or wrong by `metric`."""
    known = {(o.values or {}).get(metric) for arm in arms for o in arm}
    return known <= {0.0, 1.0} or (metric in RIGHT_OR_WRONG and known == {None})


def _right(outcome: Outcome, metric: str) -> float:
    values = outcome.values or {}
    return values[metric] if metric in values else float(outcome.correct)


def _means(arm: Sequence[Sequence[Outcome]], metric: str) -> Floats:
    """[seeds, items, 2]: the item's value and 1, or zeros where it has none."""
    found = [[(o.values or {}).get(metric) for o in seed] for seed in arm]
    return np.asarray(
        [[(0.0, 0.0) if value is None else (value, 1.0) for value in seed] for seed in found], np.float64
    )


def _higher(sums: Floats) -> Floats:
    """Means over the items that have the value; a resample may have none of them, and says nothing then."""
    means = sums[..., 0::2] / np.maximum(sums[..., 1::2], 1.0)
    return np.asarray(means[..., 0] - means[..., 1])


def _lower(sums: Floats) -> Floats:
    return np.asarray(-_higher(sums))


def _bits(sums: Floats) -> Floats:
    return np.asarray(_nll(sums) / np.log(2.0))


def _share(items: int) -> Effect:
    def improvement(sums: Floats) -> Floats:
        return np.asarray((sums[..., 0] - sums[..., 1]) / items)

    return improvement


def _nll(sums: Floats) -> Floats:
    return np.asarray(sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1])


def _perplexity(sums: Floats) -> Floats:
    candidate, control = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    return np.asarray(
        np.exp(np.minimum(control, LARGEST_EXPONENT)) - np.exp(np.minimum(candidate, LARGEST_EXPONENT))
    )


def _likelihoods(arm: Sequence[Sequence[Outcome]], size: str = "tokens") -> Floats:
    """[seeds, items, 2]: nll and tokens, words or bytes; a likelihood that isn't there is not a number."""

    def of(o: Outcome) -> tuple[float, float]:
        length = o.tokens if size == "tokens" else (o.values or {}).get(size, 0.0)
        return float("nan") if o.nll is None else o.nll, length

    return np.asarray([[of(o) for o in seed] for seed in arm], np.float64)


def _right_tokens(arm: Sequence[Sequence[Outcome]]) -> Floats:
    """[seeds, items, 2]: tokens whose most probable answer is right, and scored tokens."""
    return np.asarray([[((o.values or {})[RIGHT], o.tokens) for o in seed] for seed in arm], np.float64)


def _token_share(sums: Floats) -> Floats:
    return np.asarray(-_nll(sums))


def _names(outcome: Outcome) -> tuple[str | None, str | None]:
    return outcome.prediction, outcome.reference


def _classes(arm: Sequence[Sequence[Outcome]], names: Sequence[str]) -> Floats:
    """[seeds, items, 3 x classes]: right, predicted and wanted by class."""
    index, count = {name: at for at, name in enumerate(names)}, len(names)
    found = np.zeros((len(arm), len(arm[0]), 3 * count))
    for seed, outcomes in enumerate(arm):
        given, wanted = (
            [index[n or ""] for n in column] for column in zip(*map(_names, outcomes), strict=True)
        )
        rows = np.arange(len(outcomes))
        found[seed, rows, count + np.asarray(given)] = 1
        found[seed, rows, 2 * count + np.asarray(wanted)] = 1
        hit = np.asarray(given) == np.asarray(wanted)
        found[seed, rows[hit], np.asarray(given)[hit]] = 1
    return found


def _f1_of(classes: int) -> Effect:
    def f1(sums: Floats) -> Floats:
        right, given, wanted = (sums[..., at * classes : (at + 1) * classes] for at in range(3))
        both = given + wanted
        return np.asarray((2 * right / np.maximum(both, 1)).sum(axis=-1) / (both > 0).sum(axis=-1))

    def improvement(sums: Floats) -> Floats:
        return f1(sums[..., : 3 * classes]) - f1(sums[..., 3 * classes :])

    return improvement
