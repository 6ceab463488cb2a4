"""Tests and corrections against scipy and statsmodels, and against hand-worked numbers."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tlscale.evaluation import stats


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 12), (40, 60), (300, 10), (7, 7)])
def test_mcnemar_equals_statsmodels(b: int, c: int) -> None:
    expected = 1.0 if b + c == 0 else mcnemar([[5, b], [c, 5]], exact=True).pvalue
    assert stats.mcnemar_exact(b, c) == pytest.approx(expected)


def test_holm_equals_statsmodels() -> None:
    generator = random.Random(0)
    for count in (1, 2, 5, 9):
        p_values = [generator.random() ** 3 for _ in range(count)]
        assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert stats.holm([]) == ()


def test_bca_equals_scipy() -> None:
    values = np.random.default_rng(0).exponential(1.0, 60)
    expected = bootstrap(
        (values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = stats.paired_bootstrap(values, draws=20000)
    mean = values.mean()
    assert found.effect == pytest.approx(mean)
    lean = (expected.high - mean) / (mean - expected.low)
    assert lean > 1.1
    assert (found.high - mean) / (mean - found.low) == pytest.approx(lean, rel=0.05)
    # Slightly wider, by Student's t.
    assert 1.0 < (found.high - found.low) / (expected.high - expected.low) < 1.06


def test_p_values_agree_with_the_interval_and_with_the_t_test() -> None:
    values = np.random.default_rng(5).normal(0.15, 1.0, 150)
    found = stats.resample(values[None, :, None], lambda s: s[..., 0] / 150, draws=20000)
    p = stats.p_two_sided(found)
    assert p == pytest.approx(ttest_1samp(values, 0.0).pvalue, rel=0.25)
    edge = stats.interval(found, 1 - p)
    assert min(abs(edge.low), abs(edge.high)) < 0.005


def test_equivalence_means_that_the_shorter_interval_lies_inside_the_margin() -> None:
    values = np.random.default_rng(6).normal(0.0, 1.0, 400)
    found = stats.resample(values[None, :, None], lambda s: s[..., 0] / 400, draws=8000)
    shorter = stats.interval(found, 0.90)
    reach = max(abs(shorter.low), abs(shorter.high))
    assert stats.tost(found, reach * 1.03) < 0.05 < stats.tost(found, reach * 0.97)


def test_a_thousand_items_at_ten_percent_discordance_find_2_8_points() -> None:
    stderr = stats.discordance_stderr(0.10, 1000)
    assert stats.smallest_detectable(stderr) == pytest.approx(0.028, abs=0.0002)
    assert stats.smallest_detectable(stderr, df=4) > stats.smallest_detectable(stderr)


def test_identical_answers_differ_by_nothing() -> None:
    found = stats.hierarchical_bootstrap(np.zeros((3, 20)))
    assert (found.effect, found.low, found.high, found.stderr) == (0, 0, 0, 0)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(7).normal(size=50)
    assert stats.paired_bootstrap(values, seed=3) == stats.paired_bootstrap(values, seed=3)
    assert stats.paired_bootstrap(values, seed=3) != stats.paired_bootstrap(values, seed=4)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_what_can_not_be_resampled_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2 items and finite values"):
        stats.paired_bootstrap(values)


def test_statistics_are_free_of_torch() -> None:
    program = "import sys, tlscale.evaluation.contrast; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
