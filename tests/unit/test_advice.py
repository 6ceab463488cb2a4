"""From evidence to advice, by the rules alone, and what a race changes."""

from __future__ import annotations

from typing import Any

import pytest

from tlscale.errors import PlanError
from tlscale.outer.advisor import reordered
from tlscale.planning.advice import Advice, Estimate, Evidence, advise, written
from tlscale.planning.compile import compile_plan
from tlscale.recipe.load import check


def share(value: float, spread: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - spread, high=value + spread)


def seen(**facts: Any) -> Evidence:
    """77 classes of text with much data, where nothing is remarkable."""
    usual: dict[str, Any] = {
        "task": "sequence-classification", "rows": 10_003, "examined": 2000, "parameters": 22_000_000,
        "classes": 77, "fewest": 10, "median": 26, "majority": 0.02, "zero_shot": share(0.62),
        "class_mean": share(0.82), "linear": share(0.88), "tfidf": share(0.75), "shuffled": share(0.013),
    }  # fmt: skip
    return Evidence(**{**usual, **facts})


CASES = [
    pytest.param({}, "transfer", "lora", id="room above a head, and rows enough"),
    pytest.param({"linear": share(0.93)}, "transfer", "features", id="a head is close to the top"),
    pytest.param({"median": 8, "rows": 616}, "transfer", "features", id="few rows"),
    pytest.param(
        {"rows": 77, "fewest": 1, "median": 1, "linear": None, "class_mean": None, "tfidf": None},
        "zero-shot suffices", "zero_shot", id="one row a class",
    ),
    pytest.param(
        {"fewest": 1, "linear": None, "class_mean": None, "zero_shot": share(0.01)},
        "too little to tell", "features", id="one row a class, and label names say nothing",
    ),
    pytest.param(
        {"median": 2, "linear": share(0.5), "class_mean": share(0.55)},
        "zero-shot suffices", "zero_shot", id="a head of two rows is worse than label names",
    ),
    pytest.param(
        {"linear": share(0.02), "class_mean": share(0.015)}, "do not transfer", "lora",
        id="no better than chance",
    ),
    pytest.param({"tfidf": share(0.95)}, "do not transfer", "lora", id="words alone do better"),
    pytest.param(
        {"task": "image-classification", "zero_shot": None, "tfidf": None}, "transfer", "partial",
        id="images",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "word", "first"), CASES)
def test_the_rules(facts: dict[str, Any], word: str, first: str) -> None:
    advice = advise(seen(**facts))
    assert (advice.word, advice.chosen.name) == (word, first)
    assert advice.reasons
    assert Advice.model_validate_json(advice.model_dump_json()) == advice


@pytest.mark.parametrize(
    ("facts", "word", "first"),
    [
        ({"parameters": 8_000_000_000, "base_nll": 2.4}, "transfer", "lora"),
        ({"parameters": 260_000, "base_nll": 4.6, "retention_nll": 1.2}, "transfer", "full"),
        ({"parameters": 260_000, "base_nll": 1.2, "retention_nll": 1.2}, "zero-shot suffices", "zero_shot"),
    ],
    ids=["large", "small", "known already"],
)
def test_language_models(facts: dict[str, Any], word: str, first: str) -> None:
    advice = advise(Evidence(**{"task": "causal-lm", "rows": 1000, "examined": 200, **facts}))
    assert (advice.word, advice.chosen.name) == (word, first)


def test_a_shift_is_said() -> None:
    assert not [r for r in advise(seen(told_apart=0.52, told_apart_p=0.4)).reasons if "told from" in r]
    (said,) = [r for r in advise(seen(told_apart=0.9, told_apart_p=0.01)).reasons if "told from" in r]
    assert "90% right" in said


def test_a_race_reorders_and_can_turn_the_word() -> None:
    advice = advise(seen())
    raced = reordered(advice, "accuracy", {"lora": 0.90, "features": 0.92})
    assert [p.name for p in raced.proposals] == ["features", "lora"]
    assert "lora 0.9000, features 0.9200" in raced.reasons[-1]
    few = advise(seen(fewest=1, linear=None, class_mean=None))
    assert reordered(few, "accuracy", {"zero_shot": 0.6, "features": 0.7}).word == "transfer"
    assert reordered(few, "accuracy", {"zero_shot": 0.6, "features": 0.5}).word == "zero-shot suffices"
    assert reordered(few, "accuracy", {"zero_shot": None}).proposals == few.proposals
    assert reordered(advice, "nll", {"lora": 0.4, "features": 0.5}).chosen.name == "lora"


def test_the_advised_recipe_is_one_and_its_own_settings_win() -> None:
    raw = {
        "version": 1,
        "name": "x",
        "model": {"model_name_or_path": "builtin:pico", "task": "causal-lm"},
        "data": {"train": {"path": "builtin:code-train.jsonl", "text": "text"}},
        "strategy": {"kind": "auto"},
        "train": {"learning_rate": 0.5},
    }
    with pytest.raises(PlanError, match="tlscale advise"):
        compile_plan(check(raw, source="x"))
    advice = advise(Evidence(task="causal-lm", rows=10, examined=0, parameters=1))
    for proposal in advice.proposals:
        recipe = check(written(raw, proposal), source="x")
        assert recipe.train.learning_rate == 0.5
        assert recipe.train.train_batch_size == 16
        assert compile_plan(recipe).stages
