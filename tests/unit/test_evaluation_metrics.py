"""Metrics against scikit-learn and hand-worked cases."""

import math
import random

import pytest
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as reference_f1

from tlscale.evaluation.metrics import accuracy, f1_macro, nll, perplexity
from tlscale.evaluation.types import Outcome


def outcomes(pairs: list[tuple[str, str]]) -> list[Outcome]:
    return [Outcome(item=i, where="", prediction=p, reference=r) for i, (p, r) in enumerate(pairs)]


def test_accuracy_and_f1_equal_scikit_learn() -> None:
    generator = random.Random(0)
    pairs = [(generator.choice("abcd"), generator.choice("abce")) for _ in range(200)]
    given, wanted = zip(*pairs, strict=True)
    value, stderr = accuracy(outcomes(pairs))
    assert value == pytest.approx(accuracy_score(wanted, given))
    assert stderr == pytest.approx(math.sqrt(value * (1 - value) / 200))
    assert f1_macro(outcomes(pairs))[0] == pytest.approx(reference_f1(wanted, given, average="macro"))


def test_nll_is_per_token_not_per_row() -> None:
    rows = [Outcome(item=0, where="", nll=30.0, tokens=10), Outcome(item=1, where="", nll=1.0, tokens=1)]
    value, stderr = nll(rows)
    assert value == pytest.approx(31 / 11)
    assert stderr is not None
    assert stderr > 0
    assert perplexity(rows)[0] == pytest.approx(math.exp(31 / 11))


def test_a_constant_rate_has_no_error() -> None:
    rows = [Outcome(item=i, where="", nll=2.0 * n, tokens=n) for i, n in enumerate((1, 5, 9))]
    assert nll(rows) == (2.0, pytest.approx(0.0))
