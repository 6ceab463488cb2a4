"""Measures that know no label: against hand calculations, SciPy, and the plain n x n form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy as reference

from tlscale.evaluation import labelfree
from tlscale.evaluation.types import Outcome

GENERATOR = np.random.default_rng(0)
CHANCES = GENERATOR.dirichlet(np.ones(5), size=37)


def outcomes(chances: np.ndarray) -> list[Outcome]:
    return [
        Outcome(item=i, where=f"r.jsonl:{i}", scores=tuple(np.log(row).tolist()))
        for i, row in enumerate(chances)
    ]


def test_entropy_is_the_mean_of_rows() -> None:
    value, error = labelfree.entropy(outcomes(CHANCES))
    each = reference(CHANCES, axis=1)
    assert value == pytest.approx(each.mean(), abs=1e-12)
    assert error == pytest.approx(each.std(ddof=1) / math.sqrt(37), abs=1e-12)


def test_infomax_is_the_mutual_information_of_rows_and_answers() -> None:
    value, _ = labelfree.infomax(outcomes(CHANCES))
    joint = CHANCES / len(CHANCES)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    assert value == pytest.approx((joint * np.log(joint / independent)).sum(), abs=1e-12)


def test_infomax_is_highest_where_rows_are_sure_and_varied() -> None:
    sure = np.full((6, 3), 1e-9)
    sure[np.arange(6), [0, 1, 2, 0, 1, 2]] = 1.0
    same = np.full((6, 3), 1e-9)
    same[:, 0] = 1.0
    assert labelfree.infomax(outcomes(sure))[0] == pytest.approx(math.log(3), abs=1e-6)
    assert labelfree.infomax(outcomes(same))[0] == pytest.approx(0.0, abs=1e-6)


def test_neighbourhood_density_equals_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = CHANCES / np.linalg.norm(CHANCES, axis=1, keepdims=True)
    near = np.exp(unit @ unit.T / 0.05)
    np.fill_diagonal(near, 0.0)
    wanted = reference(near, axis=1).mean()
    assert labelfree.snd(outcomes(CHANCES))[0] == pytest.approx(wanted, abs=1e-9)
    monkeypatch.setattr(labelfree, "ROWS_AT_ONCE", 8)
    assert labelfree.snd(outcomes(CHANCES))[0] == pytest.approx(wanted, abs=1e-9)


def test_neighbourhood_density_likes_answers_that_many_rows_share() -> None:
    clustered = np.repeat(np.eye(3) * 0.9 + 0.1 / 3, 10, axis=0)
    assert labelfree.snd(outcomes(clustered))[0] == pytest.approx(math.log(9), abs=1e-3)
    assert math.isnan(labelfree.snd(outcomes(CHANCES[:1]))[0])
