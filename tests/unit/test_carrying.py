"""What a stage makes of the one before: kept, merged, left behind, or refused in time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.facts import LABELS, llama
from tests.unit.test_plan_checks import ADAPT, CPU, LORA, PREFIX, recipe_of, stage_of
from tlscale.errors import PlanError
from tlscale.planning.carrying import SAID, carried, foundation, notes
from tlscale.planning.checks import check
from tlscale.planning.types import Adapter, Head, Stage

WIDER = Adapter(peft_type="LORA", fields={"r": 8})
RECIPE = recipe_of("sequence-classification")


def stage(name: str, after: str = "base", adapter: Adapter | None = LORA, **slots: Any) -> Stage:
    changed = {**ADAPT, "adapter": adapter} if adapter is not None else {}
    return stage_of(RECIPE, llama(labels=LABELS), name=name, starts_from=after, **changed, **slots)


@pytest.mark.parametrize(
    ("first", "second", "asked", "carry"),
    [
        (LORA, LORA, "auto", "keep"),
        (LORA, WIDER, "auto", "merge"),
        (LORA, None, "auto", "merge"),
        (None, LORA, "auto", "none"),
        (PREFIX, PREFIX, "auto", "keep"),
        (LORA, LORA, "keep", "keep"),
        (LORA, LORA, "merge", "merge"),
        (LORA, None, "merge", "merge"),
        (LORA, LORA, "fresh", "fresh"),
        (PREFIX, LORA, "fresh", "fresh"),
    ],
)
def test_the_plan_decides(first: Adapter | None, second: Adapter | None, asked: Any, carry: str) -> None:
    made = carried((stage("a", adapter=first), stage("b", "a", second)), {"b": asked})
    assert [one.carry for one in made] == ["none", carry]
    assert set(SAID) >= {one.carry for one in made}


@pytest.mark.parametrize(
    ("first", "second", "asked", "said"),
    [
        (
            LORA,
            WIDER,
            "keep",
            r"b: carry: keep: the adapter of a can't go on: r 4 there and 8 here;",
        ),
        (LORA, PREFIX, "keep", r"it is LORA, and this stage trains PREFIX_TUNING"),
        (LORA, None, "keep", r"this stage trains no adapter; use merge"),
        (LORA, None, "fresh", r"trains no adapter that could begin afresh; give starts_from: base"),
        (
            None,
            LORA,
            "keep",
            r"stage a trains no adapter, and its whole result is what this stage",
        ),
        (None, LORA, "fresh", r"leave carry out, or give starts_from: base to leave it behind"),
        (
            PREFIX,
            LORA,
            "auto",
            r"can't be merged, and it can't go on: it is PREFIX.*; use fresh, or give",
        ),
        (PREFIX, PREFIX, "merge", r"can't be merged; use keep, or use fresh, or give starts_from: base"),
        (PREFIX, None, "auto", r"this stage trains no adapter; give starts_from: base"),
    ],
)
def test_what_cant_be_meant_is_refused(
    first: Adapter | None, second: Adapter | None, asked: Any, said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        carried((stage("a", adapter=first), stage("b", "a", second)), {"b": asked})


def test_all_problems_are_named_at_once_and_the_base_has_no_adapter() -> None:
    with pytest.raises(PlanError) as caught:
        carried((stage("a"), stage("b", "a", WIDER)), {"a": "merge", "b": "keep"})
    first, second = str(caught.value).splitlines()
    assert first.startswith("stages: a: carry: merge: the stage starts from the base")
    assert second.startswith("stages: b: carry: keep")


def test_another_head_is_not_lost_in_silence() -> None:
    pooled = stage("a", head=Head(kind="pooled"))
    with pytest.raises(PlanError, match="its head is another one"):
        carried((pooled, stage("b", "a")), {"b": "keep"})
    made = carried((pooled, stage("b", "a")), {})
    assert made[1].carry == "merge"
    assert notes(made) == ["stage b has another head than a, whose head is left behind"]
    fresh = carried((stage("a"), stage("b", "a")), {"b": "fresh"})
    (said,) = (note for note in check(RECIPE, llama(labels=LABELS), fresh, CPU) if "stages/a" in note)
    assert said.startswith("stage b begins as a began")
    assert notes(carried((stage("a"), stage("b", "a")), {})) == []


def test_what_an_adapter_stands_on() -> None:
    """A kept or a fresh one stands on what the first of them began with."""
    names = ("a", "b", "c", "d")
    starts = ("base", "a", "b", "c")
    chain = tuple(stage(name, start) for name, start in zip(names, starts, strict=True))
    kept = carried(chain, {"d": "fresh"})
    assert [foundation(kept, one) for one in kept] == ["base"] * 4
    merged = carried(chain, {"c": "merge", "d": "fresh"})
    assert [foundation(merged, one) for one in merged] == ["base", "base", "b", "b"]
    whole = carried((stage("a", adapter=None), stage("b", "a"), stage("c", "b")), {})
    assert [foundation(whole, one) for one in whole] == ["base", "a", "a"]
