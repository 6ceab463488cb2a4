"""Statistics of paired comparisons: arrays in, intervals and p-values out. Free of torch.

Items are paired, and crossed with seeds: every seed is scored on the same items. A resample therefore
draws items once for all seeds (the pigeonhole bootstrap, Owen 2007, arXiv:0712.1111); the spread between
seeds is added with the tails of Student's t, since resampling five values understates it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Effect = Callable[[Floats], Floats]

DRAWS = 4000
CELLS_AT_ONCE = 2_000_000
FEW_SEEDS = 5


@dataclass(frozen=True)
class Resampled:
    """An estimate with its resampling distribution.

    `deviations` [draws] lie around 0; `bias` (a normal quantile) and `acceleration` are those of the BCa
    interval (Efron 1987), 0 for a plain percentile interval; `df` are Satterthwaite's degrees of freedom
    of `stderr`.
    """

    effect: float
    deviations: Floats
    stderr: float
    df: float
    bias: float = 0.0
    acceleration: float = 0.0


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval at `level`."""

    effect: float
    low: float
    high: float
    level: float
    stderr: float


def paired_bootstrap(
    differences: ArrayLike, *, level: float = 0.95, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """BCa interval of the mean of `differences` [items], one number per paired item."""
    return hierarchical_bootstrap(np.asarray(differences)[None, :], level=level, seed=seed, draws=draws)


def hierarchical_bootstrap(
    differences: ArrayLike, *, level: float = 0.95, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Interval of the mean of `differences` [seeds, items] for new seeds and new items."""
    features = np.asarray(differences, dtype=np.float64)[:, :, None]
    items = features.shape[1]
    return interval(resample(features, lambda sums: sums[..., 0] / items, seed=seed, draws=draws), level)


def ratio_bootstrap(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Interval of sum / sum, such as nll per token; both [seeds, items], resampled together."""
    features = np.stack([np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)], axis=-1)
    return interval(resample(features, lambda s: s[..., 0] / s[..., 1], seed=seed, draws=draws), level)


def resample(features: Floats, of: Effect, *, seed: int = 0, draws: int = DRAWS) -> Resampled:
    """The resampling distribution of a function of sums over items, averaged over seeds.

    `features` is [seeds, items, k]; `of` maps sums [..., k] to effects [...].

    Raises:
        ValueError: fewer than two items, or a value is not finite.
    """
    seeds, items, _ = features.shape
    if items < 2 or not np.isfinite(features).all():
        raise ValueError(f"resampling needs at least 2 items and finite values, not {items} items")
    random = np.random.default_rng(seed)
    per_seed = of(features.sum(axis=1))
    effect = float(per_seed.mean())
    drawn = of(_resampled_sums(features, draws, random))
    means = drawn.mean(axis=1)
    small = items / (items - 1)
    over_items = float(means.var()) * small
    over_seeds, noise = 0.0, 0.0
    if seeds > 1:
        over_seeds = float(per_seed.var(ddof=1)) / seeds
        noise = max(0.0, float(drawn.var(axis=0).mean()) * small - over_items) / (seeds - 1)
    # The noise of single answers is part of both spreads, and counts once.
    variance = max(over_seeds + over_items - noise, over_items)
    df = _satterthwaite(variance, ((over_seeds, seeds - 1), (over_items, items - 1)))
    deviations = math.sqrt(small) * (means - effect)
    # Satterthwaite's approximation is too narrow for very few seeds, whose own t is not.
    few = 1 < seeds < FEW_SEEDS
    if over_seeds > 0:
        between = random.standard_t(seeds - 1, draws) if few else random.standard_normal(draws)
        deviations = deviations + between * math.sqrt(over_seeds)
        deviations *= math.sqrt(variance / (over_seeds + over_items))
    tail = items - 1 if few else df
    if math.isfinite(tail):
        deviations *= np.sqrt(tail / random.chisquare(tail, draws))
    bias, acceleration = _bca(features, of, means, effect) if seeds == 1 else (0.0, 0.0)
    return Resampled(effect, deviations, math.sqrt(variance), df, bias, acceleration)


def _resampled_sums(features: Floats, draws: int, random: np.random.Generator) -> Floats:
    """Sums over items drawn with replacement, the same for all seeds: [draws, seeds, k]."""
    seeds, items, width = features.shape
    sums = np.empty((draws, seeds, width))
    step = max(1, CELLS_AT_ONCE // items)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        chosen = random.integers(0, items, (count, items)) + items * np.arange(count)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=count * items).reshape(count, items)
        sums[start : start + count] = np.matmul(weights.astype(np.float64), features).transpose(1, 0, 2)
    return sums


def _satterthwaite(variance: float, parts: Sequence[tuple[float, int]]) -> float:
    spread = sum(part**2 / df for part, df in parts if df > 0)
    return variance**2 / spread if spread > 0 else math.inf


def _bca(features: Floats, of: Effect, means: Floats, effect: float) -> tuple[float, float]:
    """Bias and acceleration, the latter from leaving out one item at a time."""
    below = float(np.mean(means < effect) + np.mean(means == effect) / 2)
    bias = float(stats.norm.ppf(min(max(below, 0.01), 0.99)))
    left_out = of(features.sum(axis=1) - features[0])
    centred = left_out.mean() - left_out
    scale = float((centred**2).sum()) ** 1.5
    return bias, float((centred**3).sum()) / (6 * scale) if scale > 0 else 0.0


def interval(resampled: Resampled, level: float = 0.95) -> Interval:
    """The BCa interval, which is the percentile interval where bias and acceleration are 0."""
    z = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2]) + resampled.bias
    shifted = stats.norm.cdf(resampled.bias + z / (1 - resampled.acceleration * z))
    low, high = resampled.effect + np.quantile(resampled.deviations, shifted)
    return Interval(resampled.effect, float(low), float(high), level, resampled.stderr)


def p_at_most(resampled: Resampled, bound: float) -> float:
    """One-sided p-value of "the true effect is at most `bound`": the interval inverted."""
    drawn, draws = resampled.effect + resampled.deviations, len(resampled.deviations)
    below = float(np.sum(drawn < bound) + np.sum(drawn == bound) / 2)
    share = min(max(below, 1.0), draws - 1.0) / draws
    w = float(stats.norm.ppf(share)) - resampled.bias
    z = w / max(1 + resampled.acceleration * w, 1e-9) - resampled.bias
    return float(stats.norm.cdf(z))


def p_two_sided(resampled: Resampled) -> float:
    """Two-sided p-value of "the true effect is 0"; no smaller than the number of draws can tell."""
    one_side = p_at_most(resampled, 0.0)
    return min(1.0, 2 * min(one_side, 1 - one_side))


def tost(resampled: Resampled, margin: float) -> float:
    """p-value of "the true effect is outside (-margin, margin)": two one-sided tests.

    Schuirmann 1987. Below 5 %, the 90 % interval lies within the margin.
    """
    return max(p_at_most(resampled, -margin), 1 - p_at_most(resampled, margin))


def mcnemar_exact(b: int, c: int) -> float:
    """Exact two-sided p-value for `b` and `c` discordant pairs (McNemar 1947, by the binomial)."""
    if b + c == 0:
        return 1.0
    return float(stats.binomtest(b, b + c).pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values corrected for their number (Holm 1979), in their own order."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def smallest_detectable(
    stderr: float, *, df: float = math.inf, level: float = 0.95, power: float = 0.8
) -> float:
    """The effect that a two-sided test finds with `power`, given the standard error of the estimate."""
    reference = stats.norm if math.isinf(df) else stats.t(df)
    return stderr * float(reference.ppf((1 + level) / 2) + reference.ppf(power))


def discordance_stderr(discordant: float, items: int) -> float:
    """Standard error of a difference of shares, for a share `discordant` of unequal pairs and no effect."""
    return math.sqrt(discordant / items)
