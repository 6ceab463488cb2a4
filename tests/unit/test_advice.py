"""From evidence to advice, by the rules alone, and what a race changes."""

from __future__ import annotations

from typing import Any

import pytest

from tlscale.errors import PlanError
from tlscale.outer.advisor import reordered
from tlscale.outer.space import race
from tlscale.outer.trials import OUT_OF_TIME
from tlscale.planning.advice import Advice, Estimate, Evidence, advise, written
from tlscale.planning.compile import compile_plan
from tlscale.recipe.load import check
from tlscale.report.sweeps import Trial


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
        ({"task": "masked-lm", "parameters": 22_000_000, "base_nll": 3.1}, "transfer", "full"),
        ({"task": "masked-lm", "parameters": 400_000_000, "base_nll": 3.1}, "transfer", "lora"),
        ({"task": "masked-lm", "parameters": 400_000_000, "new_head": True}, "transfer", "full"),
    ],
    ids=["large", "small", "known already", "fills masks", "large, fills masks", "new head"],
)
def test_language_models(facts: dict[str, Any], word: str, first: str) -> None:
    advice = advise(Evidence(**{"task": "causal-lm", "rows": 1000, "examined": 200, **facts}))
    assert (advice.word, advice.chosen.name) == (word, first)


def test_encoders_are_trained_gently_and_never_an_adapter_around_a_random_head() -> None:
    known = Evidence(task="masked-lm", rows=100, examined=100, parameters=22_000_000, base_nll=3.1)
    rates = {p.name: p.train["learning_rate"] for p in advise(known).proposals}
    assert rates == {"full": 1e-4, "lora": 1e-3}
    assert "nats per hidden token" in advise(known).reasons[0]
    new = advise(known.model_copy(update={"new_head": True, "base_nll": None}))
    assert [p.name for p in new.proposals] == ["full", "partial"]


def test_a_shift_is_said() -> None:
    assert not [r for r in advise(seen(told_apart=0.52, told_apart_p=0.4)).reasons if "told from" in r]
    (said,) = [r for r in advise(seen(told_apart=0.9, told_apart_p=0.01)).reasons if "told from" in r]
    assert "90% right" in said


def raced_to(**values: float | None) -> dict[str, Trial]:
    return {
        name: Trial(
            number=0, state="pruned" if value is None else "complete", parameters={}, folder=name,
            value=value,
        )
        for name, value in values.items()
    }  # fmt: skip


def test_what_was_hopeless_is_said_and_stays_behind() -> None:
    found = {**raced_to(features=0.8, lora=None)}
    raced = reordered(advise(seen()), "accuracy", found)
    assert [p.name for p in raced.proposals] == ["features", "lora"]
    assert raced.reasons[-1].endswith("Stopped early as hopeless: lora.")
    late = {"lora": found["lora"].model_copy(update={"reason": OUT_OF_TIME}), "features": found["features"]}
    assert "hopeless" not in reordered(advise(seen()), "accuracy", late).reasons[-1]


def test_a_contender_is_judged_from_half_of_its_training_on() -> None:
    good = Trial(number=0, state="complete", parameters={}, folder="a", value=0.9, losses=(2.0,) * 8)
    assert not race([], warmup=4).hopeless([3.0] * 8), "nobody to compare with"
    slow = race([good], warmup=4)
    assert not slow.hopeless([9.0, 8.0, 7.0, 6.0])
    assert slow.hopeless([9.0, 8.0, 7.0, 6.0, 5.0])
    assert not race([good], warmup=4).hopeless([9.0, 8.0, 7.0, 6.0, 1.9])
    assert not race([good.model_copy(update={"state": "failed", "value": None})], warmup=4).hopeless(
        [9.0] * 8
    )


def test_a_race_reorders_and_can_turn_the_word() -> None:
    advice = advise(seen())
    raced = reordered(advice, "accuracy", raced_to(lora=0.90, features=0.92))
    assert [p.name for p in raced.proposals] == ["features", "lora"]
    assert "lora 0.9000, features 0.9200" in raced.reasons[-1]
    few = advise(seen(fewest=1, linear=None, class_mean=None))
    assert reordered(few, "accuracy", raced_to(zero_shot=0.6, features=0.7)).word == "transfer"
    assert reordered(few, "accuracy", raced_to(zero_shot=0.6, features=0.5)).word == "zero-shot suffices"
    assert reordered(few, "accuracy", raced_to(zero_shot=None)).proposals == few.proposals
    assert reordered(advice, "nll", raced_to(lora=0.4, features=0.5)).chosen.name == "lora"


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
