"""Items of tasks are paired by their own values, with the statistics that right and wrong answers have."""

from __future__ import annotations

import json
import random

import pytest

from tlscale.evaluation.contrast import contrast
from tlscale.evaluation.types import Outcome


def arm(share: float, seed: int, n: int = 60) -> tuple[list[Outcome], list[Outcome]]:
    """The same answers as predictions, and as values of a metric."""
    generator = random.Random(seed)
    right = [generator.random() < share for _ in range(n)]
    plain = [
        Outcome(item=i, where=f"x:{i}", prediction="a" if r else "b", reference="a")
        for i, r in enumerate(right)
    ]
    valued = [Outcome(item=i, where=f"x:{i}", values={"acc_norm": float(r)}) for i, r in enumerate(right)]
    return plain, valued


def test_a_tasks_accuracy_is_judged_like_any_accuracy() -> None:
    (a, a_valued), (b, b_valued) = arm(0.8, 1), arm(0.5, 2)
    plain = contrast([a], [b], "accuracy")
    assert contrast([a_valued], [b_valued], "acc_norm") == plain
    assert "McNemar" in plain.method
    same = contrast([a_valued], [a_valued], "acc_norm")
    assert same.effect == 0.0
    assert same.low < 0.0 < same.high


def test_values_that_only_some_items_have_are_means_over_those() -> None:
    high = [Outcome(item=i, where="x", values={"bias": 0.5} if i % 2 else {}) for i in range(40)]
    low = [Outcome(item=i, where="x", values={"bias": 0.25} if i % 2 else {}) for i in range(40)]
    assert contrast([high], [low], "bias").effect == pytest.approx(0.25)


def test_bits_per_byte_are_better_when_lower() -> None:
    worse, better = (
        [Outcome(item=i, where="x", nll=nll + i / 10, values={"bytes": 10.0}) for i in range(20)]
        for nll in (12.0, 9.0)
    )
    assert contrast([better], [worse], "bits_per_byte").effect == pytest.approx(0.3 / 0.6931471805599453)


def test_an_outcome_survives_its_file() -> None:
    one = Outcome(item=1, where="x:1", scores=(-1.5, -2.0), values={"acc": 1.0}, tags={"of": "sums"})
    assert Outcome.model_validate(json.loads(one.model_dump_json(exclude_none=True))) == one
