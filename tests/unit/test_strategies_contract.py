"""What every strategy owes the engine; a new one is picked up from the plugin table by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.facts import LABELS, llama
from tlscale import plugins
from tlscale.errors import PlanError
from tlscale.planning.compile import pooled_head
from tlscale.planning.rules import decide
from tlscale.planning.strategy import Context, Strategy
from tlscale.planning.types import Facts, Stage
from tlscale.recipe.load import check, strategy_options

CASES = [
    pytest.param(kind, variant, id="-".join([kind, *(str(v) for v in variant.values())])[:40])
    for kind in plugins.names("tlscale.strategies")
    for variant in plugins.load("tlscale.strategies", kind).variants()
]


def context(written: dict[str, Any], facts: Facts) -> Context:
    raw = {
        "version": 1,
        "name": "x",
        "model": {
            "model_name_or_path": "m",
            "task": "sequence-classification" if facts.labels else "causal-lm",
        },
        "data": {"train": {"hub": "d"}},
        "strategy": written,
        "train": {"learning_rate": 0.5, "max_steps": 7},
    }
    recipe = check(raw, source="x")
    return Context(recipe, recipe.train, facts)


def compiled(kind: str, variant: dict[str, Any], facts: Facts) -> tuple[Stage, ...]:
    strategy: Strategy = plugins.load("tlscale.strategies", kind)
    written = {"kind": kind, **variant}
    stages: tuple[Stage, ...] = strategy.compile(strategy_options(written), context(written, facts))
    return stages


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_every_strategy_keeps_the_contract(kind: str, variant: dict[str, Any]) -> None:
    keeps_the_contract(kind, variant, LABELS)
    pooled = any(one.head.kind == "pooled" for one in compiled(kind, variant, llama(labels=LABELS)))
    if not pooled:  # such a head needs labels; the plan's checks refuse a language model
        keeps_the_contract(kind, variant, ())


def keeps_the_contract(kind: str, variant: dict[str, Any], labels: tuple[str, ...]) -> None:
    facts = llama(labels=labels)
    before = facts.model_dump_json()
    stages = compiled(kind, variant, facts)
    assert stages == compiled(kind, variant, facts)
    assert facts.model_dump_json() == before
    for stage in stages:
        assert Stage.model_validate_json(stage.model_dump_json()) == stage
        assert stage.update.learning_rate == 0.5
        assert stage.budget.max_steps == 7
        tensors = facts.tensors
        if stage.head.kind == "pooled":
            backbone = tuple(t for t in tensors if not t.name.startswith("head."))
            tensors = backbone + pooled_head(stage.head, facts.architecture.hidden_size, len(labels))
        decisions = decide(tensors, stage.rules)
        assert {d.name for d in decisions} == {t.name for t in tensors}
        assert stage.adapter or any(d.lr_scale for d in decisions), "nothing would be trained"
        json.dumps(stage.model_dump(mode="json"))


def trained(kind: str, variant: dict[str, Any], facts: Facts) -> set[str]:
    (stage,) = compiled(kind, variant, facts)
    return {d.name for d in decide(facts.tensors, stage.rules) if d.lr_scale is not None}


def test_what_each_strategy_trains() -> None:
    facts = llama(labels=LABELS)
    everything = {t.name for t in facts.tensors}
    assert trained("full", {}, facts) == everything
    assert trained("peft", {"method": "lora"}, facts) == {"head.score.weight"}
    assert trained("partial", {"last_layers": 1}, facts) == {
        name for name in everything if name.startswith(("layers.1.", "head."))
    }
    assert compiled("none", {}, facts) == ()


def test_partial_first_match_wins_and_gaps_are_listed() -> None:
    facts = llama()
    rules = [
        {"pattern": r"layers\.1\.mlp\..*", "lr_scale": 0.5},
        {"pattern": r"layers\.1\..*", "lr_scale": 1.0},
        {"pattern": r"(?!norm).*", "lr_scale": None},
    ]
    (stage,) = compiled("partial", {"rules": rules}, facts)
    with pytest.raises(PlanError, match=r"norm\.weight"):
        decide(facts.tensors, stage.rules)
    (stage,) = compiled("partial", {"rules": [*rules, {"pattern": ".*", "lr_scale": 2.0}]}, facts)
    scales = {d.name: d.lr_scale for d in decide(facts.tensors, stage.rules)}
    assert scales["layers.1.mlp.up_proj.weight"] == 0.5
    assert scales["layers.1.self_attn.q_proj.weight"] == 1.0
    assert scales["layers.0.mlp.up_proj.weight"] is None
    assert scales["norm.weight"] == 2.0


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(PlanError, match="has 2 numbered blocks"):
        compiled("partial", {"last_layers": 3}, llama())


def test_peft_fields_are_those_of_the_installed_peft() -> None:
    import runpy
    from pathlib import Path

    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "peft_fields.py"))
    assert json.loads(tool["TABLE"].read_text()) == tool["table"]()
