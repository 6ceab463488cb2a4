"""The smallest change that makes a plan fit, and that the changed recipe really does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration import tiny
from tlscale.planning.compile import compile_plan, memory_shortfall, needed
from tlscale.planning.remedy import account, smallest_change
from tlscale.planning.types import Plan
from tlscale.recipe.load import load_recipe
from tlscale.recipe.types import Recipe


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("remedy")
    rows = tiny.sentences(root / "rows.jsonl")
    columns = {"path": str(rows), "prompt": "prompt", "completion": "completion"}
    return {
        "version": 1,
        "name": "t",
        "model": {"model_name_or_path": str(tiny.llama(root / "llama")), "task": "causal-lm"},
        "data": {"train": columns, "test": columns, "max_length": 64},
        "strategy": {"kind": "full"},
        "train": {"per_device_train_batch_size": 16, "train_batch_size": 16},
        "hardware": {"device": "cpu"},
    }


def plan(base: dict[str, Any], *, room: float | None = None) -> Plan:
    hardware = {"device": "cpu", **({} if room is None else {"memory_per_device": room})}
    return compile_plan(Recipe.model_validate({**base, "hardware": hardware}, strict=False))


@pytest.mark.parametrize("share", [0.8, 0.4, 0.2])
def test_the_change_that_is_named_fits(base: dict[str, Any], share: float, tmp_path: Path) -> None:
    whole = needed(plan(base).stages[0])
    short = plan(base, room=share * whole / 1e9)
    assert memory_shortfall(short)
    change = smallest_change(short, happened=False)
    assert change is not None
    written = tmp_path / "recipe.yaml"
    written.write_text(short.recipe.model_dump_json(exclude_unset=True))
    made = compile_plan(load_recipe(written, change.split()))
    assert not memory_shortfall(made)
    assert made.stages[0].batch.total == 16
    if share == 0.8:
        assert change == "train.per_device_train_batch_size=8 train.train_batch_size=16"


def test_what_ran_out_is_to_need_a_good_part_less(base: dict[str, Any]) -> None:
    made = plan(base)
    change = smallest_change(made, happened=True)
    assert change == "train.per_device_train_batch_size=8 train.train_batch_size=16"
    assert "weights" in account(made.stages[0])


def test_nothing_is_promised_where_nothing_helps(base: dict[str, Any]) -> None:
    assert smallest_change(plan(base, room=1e-6), happened=False) is None
