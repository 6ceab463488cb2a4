"""Stored outcomes to improvements: every metric, its sign, and what is found where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tlscale.evaluation.contrast import Contrasted, contrast
from tlscale.evaluation.metrics import METRICS
from tlscale.evaluation.stats import holm
from tlscale.evaluation.types import Outcome
from tlscale.report.claims import Margins, decide

LABELS = ("a", "b", "c")


def answers(random: np.random.Generator, right: float, items: int) -> list[Outcome]:
    made = []
    for item in range(items):
        reference = LABELS[item % 3]
        guess = reference if random.random() < right else LABELS[(item + 1) % 3]
        tokens = 3 + item % 5
        made.append(
            Outcome(
                item=item,
                where=f"t:{item}",
                prediction=guess,
                reference=reference,
                nll=float(tokens * (2 - right) + random.normal()),
                tokens=tokens,
            )
        )
    return made


@pytest.mark.parametrize(
    ("metric", "sign"),
    [("accuracy", 1), ("exact_match", 1), ("f1_macro", 1), ("nll", -1), ("perplexity", -1)],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_effect_is_the_improvement_of_the_metric(metric: str, sign: int, seeds: int) -> None:
    random = np.random.default_rng(0)
    good = [answers(random, 0.9, 150) for _ in range(seeds)]
    poor = [answers(random, 0.5, 150)] * seeds
    found = contrast(good, poor, metric, draws=500)
    scores = [np.mean([METRICS[metric](seed)[0] for seed in arm]) for arm in (good, poor)]
    assert found.effect == pytest.approx(sign * (scores[0] - scores[1]))
    assert 0 < found.low < found.effect < found.high
    assert (found.n_items, found.n_seeds) == (150, seeds)
    swapped = contrast(poor, good, metric, draws=500)
    assert swapped.effect == pytest.approx(-found.effect)
    assert swapped.high < 0


def words(random: np.random.Generator, *, seeds: int, controls: int, sims: int) -> list[str]:
    """The words for candidates that are no better and no worse than any control."""
    made = []
    for seed in range(sims):
        hard = random.random(150)
        arms = [[bools(random.random(150) + hard < 1.0) for _ in range(seeds)] for _ in range(controls + 1)]
        found: list[Contrasted] = [
            contrast(arms[0], other, "accuracy", draws=400, seed=seed) for other in arms[1:]
        ]
        p_holm = holm([c.p_value for c in found])
        made.append(decide(found, p_holm, ["x"] * controls, Margins(0.005, 0.95))[0])
    return made


def bools(right: np.ndarray) -> list[Outcome]:
    return [
        Outcome.model_construct(
            item=i, where="", prediction="y" if r else "n", reference="y", tokens=1, nll=None
        )
        for i, r in enumerate(right)
    ]


@pytest.mark.parametrize(("seeds", "controls"), [(1, 1), (5, 1), (3, 1), (5, 3)])
def test_no_difference_is_rarely_called_one(seeds: int, controls: int) -> None:
    random = np.random.default_rng(10 * seeds + controls)
    sims = 200
    made = words(random, seeds=seeds, controls=controls, sims=sims)
    assert (made.count("POSITIVE") + made.count("NEGATIVE")) / sims <= 0.065
    assert made.count("POSITIVE") / sims <= 0.035


def test_a_few_lucky_items_are_no_gain() -> None:
    right = np.zeros(500, dtype=bool)
    lucky = right.copy()
    lucky[:4] = True
    for seeds in (1, 5):
        found = contrast([bools(lucky)] * seeds, [bools(right)] * seeds, "accuracy")
        assert found.low <= 0
        assert found.p_value > 0.05


def test_no_discordant_pair_is_no_certainty() -> None:
    """No event in n items leaves a rate of 3 / n possible (the rule of three)."""
    same = [bools(np.ones(100, dtype=bool))]
    found = contrast(same, same, "accuracy", margin=0.05)
    assert found.low == pytest.approx(-0.03, abs=0.011)
    assert found.high == pytest.approx(0.03, abs=0.011)
    assert found.p_margin < 0.05
    assert contrast(same, same, "accuracy", margin=0.01).p_margin > 0.05
    assert found.p_value == 1.0
