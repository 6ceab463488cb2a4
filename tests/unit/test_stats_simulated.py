"""Intervals cover what they claim, and nothing is found where there is nothing: by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tlscale.evaluation import stats

DRAWS = 800
Made = tuple[float, float, float, int, int]


def crossed(random: np.random.Generator, made: Made) -> np.ndarray:
    """Differences [seeds, items] around 0, with spread between seeds, items, and single answers."""
    seed_spread, item_spread, noise, seeds, items = made
    return (
        random.normal(0, seed_spread, (seeds, 1))
        + random.normal(0, item_spread, (1, items))
        + random.normal(0, noise, (seeds, items))
    )


def coverage(drawn: list[np.ndarray], truth: float) -> float:
    inside = 0
    for seed, differences in enumerate(drawn):
        found = stats.hierarchical_bootstrap(differences, seed=seed, draws=DRAWS)
        inside += found.low <= truth <= found.high
    return inside / len(drawn)


@pytest.mark.parametrize(
    ("made", "low", "high"),
    [
        ((0.0, 1.0, 1.0, 5, 100), 0.93, 0.985),
        ((0.05, 1.0, 1.0, 5, 100), 0.93, 0.985),
        ((0.2, 1.0, 1.0, 5, 100), 0.93, 0.985),
        ((1.0, 1.0, 1.0, 5, 100), 0.93, 0.985),
        ((0.1, 1.0, 0.5, 10, 100), 0.93, 0.985),
        ((0.1, 1.0, 1.0, 3, 100), 0.93, 1.0),
        ((0.2, 1.0, 0.5, 2, 100), 0.93, 1.0),
        ((0.0, 1.0, 0.0, 1, 100), 0.925, 0.975),
        ((0.0, 1.0, 0.0, 1, 8), 0.925, 0.985),
    ],
    ids=[
        "items",
        "mostly items",
        "both",
        "seeds",
        "ten seeds",
        "three seeds",
        "two seeds",
        "one seed",
        "eight items",
    ],
)
def test_the_interval_covers_the_truth_over_seeds_and_items(made: Made, low: float, high: float) -> None:
    random = np.random.default_rng(0)
    assert low <= coverage([crossed(random, made) for _ in range(500)], 0.0) <= high


def test_resampling_seeds_as_if_they_had_items_of_their_own_would_not_cover() -> None:
    """The mistake that crossing avoids: items drawn anew for each seed look like five times as many."""
    random = np.random.default_rng(0)
    drawn = [crossed(random, (0.0, 1.0, 0.3, 5, 100)) for _ in range(200)]
    inside = 0
    for differences in drawn:
        found = stats.paired_bootstrap(differences.ravel(), draws=DRAWS)
        inside += found.low <= 0.0 <= found.high
    assert inside / len(drawn) < 0.75
    assert coverage(drawn, 0.0) > 0.92


def test_the_interval_covers_rare_discordant_pairs() -> None:
    random = np.random.default_rng(1)
    drawn = [random.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.10], size=(1, 200)) for _ in range(500)]
    assert 0.925 <= coverage(drawn, 0.05) <= 0.975


def test_the_ratio_of_sums_is_covered() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for seed in range(400):
        tokens = random.integers(5, 60, (1, 120)).astype(float)
        nll = tokens * 0.3 + np.sqrt(tokens) * random.normal(0, 1, (1, 120))
        found = stats.ratio_bootstrap(nll, tokens, seed=seed, draws=DRAWS)
        inside += found.low <= 0.3 <= found.high
    assert 0.925 <= inside / 400 <= 0.975


def test_two_one_sided_tests_keep_their_level_at_the_margin() -> None:
    """At a true effect of exactly the margin, equivalence is claimed in at most about 5 %."""
    random = np.random.default_rng(3)
    claimed = 0
    for seed in range(600):
        differences = random.normal(0.3, 1.0, (1, 200, 1))
        found = stats.resample(differences, lambda sums: sums[..., 0] / 200, seed=seed, draws=DRAWS)
        claimed += stats.tost(found, 0.3) < 0.05
    assert 0.02 <= claimed / 600 <= 0.07


def test_the_smallest_detectable_effect_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(4)
    effect = stats.smallest_detectable(1 / np.sqrt(200))
    found = [
        stats.paired_bootstrap(random.normal(effect, 1.0, 200), seed=seed, draws=DRAWS).low > 0
        for seed in range(400)
    ]
    assert 0.74 <= np.mean(found) <= 0.86
