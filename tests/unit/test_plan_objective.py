"""Objective terms that can't be meant are refused when planned, with what can."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.facts import LABELS, llama
from tests.unit.test_plan_checks import ADAPT, CPU, POOLED, ROWS, recipe_of, stage_of
from tlscale.errors import PlanError, RecipeError
from tlscale.planning.checks import check
from tlscale.planning.types import Adapter, Head, Term
from tlscale.recipe.load import check as check_recipe

CLASSIFY = "sequence-classification"
ALL_ROWS = {"train": ROWS, "test": ROWS, "replay": ROWS, "unlabelled": ROWS}
PROMPTS = {**ADAPT, "adapter": Adapter(peft_type="PROMPT_TUNING", fields={"num_virtual_tokens": 4})}
DORA = {**ADAPT, "adapter": Adapter(peft_type="LORA", fields={"r": 4, "use_dora": True})}
MOVING = {"head": Head(kind="pooled", hidden=8), "rules": POOLED["rules"]}


def planned(task: str, objective: dict[str, Any], slots: dict[str, Any], **parts: Any) -> None:
    recipe = recipe_of(task, train={"objective": objective}, **parts)
    facts = llama(labels=LABELS if task == CLASSIFY else ())
    check(recipe, facts, (stage_of(recipe, facts, **slots),), CPU)


@pytest.mark.parametrize(
    ("task", "objective", "slots", "parts", "said"),
    [
        ("causal-lm", {"replay": {}}, {}, {}, r"objective\.replay: needs rows; give data\.replay"),
        ("causal-lm", {"ewc": {}}, {}, {}, r"objective\.ewc: needs rows"),
        ("causal-lm", {"kl_to_base": {"on": "replay"}}, {}, {}, r"kl_to_base: needs rows"),
        (CLASSIFY, {"mcc": {}}, {}, {}, r"give data\.unlabelled"),
        ("causal-lm", {"mcc": {}}, {}, {"data": ALL_ROWS}, "is about classes, and causal-lm has none"),
        (CLASSIFY, {"coral": {}}, {}, {"data": ALL_ROWS}, "set head: pooled"),
        (CLASSIFY, {"mmd": {}}, POOLED, {"data": ALL_ROWS}, r"set strategy\.hidden"),
        (CLASSIFY, {"kl_to_base": {}}, {}, {}, "the head is new"),
        (CLASSIFY, {"dann": {}}, POOLED, {"data": ALL_ROWS}, r"set strategy\.hidden"),
        (CLASSIFY, {"choices": {}}, {}, {}, "a classifier's own loss does this"),
        ("causal-lm", {"choices": {}}, {}, {"data": {**ALL_ROWS, "loss_on": "all"}}, "told apart"),
        ("causal-lm", {"o_lora": {}}, {}, {}, "this stage has none; use method: lora"),
        ("causal-lm", {"o_lora": {}}, ADAPT, {}, "no earlier adapter to stay clear of"),
        ("causal-lm", {"l2_sp": {}}, PROMPTS, {}, "PROMPT_TUNING adds no change of weights"),
        ("causal-lm", {"ewc": {}}, DORA, {"data": ALL_ROWS}, "DoRA adds no change"),
        ("causal-lm", {"l2_sp": {}}, {}, {"model": {"init": "scratch"}}, "these begin random"),
        (
            "causal-lm", {"ewc": {}}, ADAPT, {"data": ALL_ROWS, "model": {"quantization": "nf4"}},
            "quantized weights have no gradients",
        ),
    ],
)  # fmt: skip
def test_refused(task: str, objective: Any, slots: Any, parts: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        planned(task, objective, slots, **parts)


@pytest.mark.parametrize(
    ("task", "objective", "slots"),
    [
        (CLASSIFY, {"dann": {}, "cdan": {"hidden": 4}}, MOVING),
        ("causal-lm", {"l2_sp": {}, "ewc": {}, "kl_to_base": {}, "replay": {}, "rdrop": {}}, ADAPT),
        ("causal-lm", {"l2_sp": {}, "kl_to_base": {"on": "replay"}}, {}),
        (CLASSIFY, {"coral": {}, "mmd": {}, "mcc": {}, "label_smoothing": 0.1}, MOVING),
        (CLASSIFY, {"coral": {}, "replay": {}}, {**ADAPT, "head": Head(kind="pooled")}),
    ],
)
def test_let_through_in_any_combination(task: str, objective: Any, slots: Any) -> None:
    planned(task, objective, slots, data=ALL_ROWS)


def test_a_discriminator_is_in_checkpoints() -> None:
    recipe = recipe_of(CLASSIFY, train={"objective": {"dann": {}}, "save_steps": 5}, data=ALL_ROWS)
    facts = llama(labels=LABELS)
    check(recipe, facts, (stage_of(recipe, facts, **MOVING),), CPU)


ADDA = {"head": Head(kind="pooled"), "objective": (Term(name="adda"),), "starts_from": "source"}


@pytest.mark.parametrize(
    ("slots", "train", "data", "said"),
    [
        ({"starts_from": "base"}, {}, ALL_ROWS, "adda goes on from an encoder and a head .*; write stages"),
        ({}, {"eval_steps": 5}, ALL_ROWS, r"train\.eval_steps: adda looks at no labels"),
        ({}, {}, {"train": ROWS, "test": ROWS}, r"objective\.adda: needs rows; give data\.unlabelled"),
        ({"head": Head(kind="native")}, {}, ALL_ROWS, "set head: pooled"),
    ],
)
def test_adda_needs_a_start_and_rows(slots: Any, train: Any, data: Any, said: str) -> None:
    recipe, facts = recipe_of(CLASSIFY, train=train, data=data), llama(labels=LABELS)
    with pytest.raises(PlanError, match=said):
        check(recipe, facts, (stage_of(recipe, facts, **{**ADDA, **slots}),), CPU)
    if "starts_from" in slots:
        check(recipe, facts, (stage_of(recipe, facts, **ADDA),), CPU)


def test_terms_are_a_closed_list_with_typed_options() -> None:
    raw: dict[str, Any] = {
        "version": 1,
        "name": "x",
        "model": {"model_name_or_path": "m", "task": "causal-lm"},
        "data": {"train": {"hub": "d"}},
        "strategy": {"kind": "full"},
        "train": {"objective": {"l2_ps": {}, "ewc": {"weight": -1.0}}},
    }
    with pytest.raises(RecipeError) as caught:
        check_recipe(raw, source="x")
    told = {problem.path: problem.message for problem in caught.value.problems}
    assert "did you mean l2_sp" in told["train.objective.l2_ps"]
    assert set(told) == {"train.objective.l2_ps", "train.objective.ewc.weight"}
