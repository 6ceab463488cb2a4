"""A plan that was changed is told from one that another version has written; both are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report_runs import plan as made
from tlscale import __version__
from tlscale.errors import PlanError
from tlscale.planning.compile import read_plan


def sealed(raw: dict[str, Any]) -> dict[str, Any]:
    """With the fingerprint that a version with these fields gives it."""
    content = {k: v for k, v in raw.items() if k not in ("fingerprint", "versions", "notes")}
    left_out = ("launch", "publish", "sweep")
    content["recipe"] = {k: v for k, v in raw["recipe"].items() if k not in left_out}
    text = json.dumps(content, sort_keys=True)
    return {**raw, "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16]}


def older(raw: dict[str, Any]) -> None:
    """As by a version that didn't have one of the fields yet."""
    raw["recipe"]["train"].pop("save_steps")


def newer(raw: dict[str, Any]) -> None:
    """As by a version that has one field more."""
    raw["recipe"]["train"]["tides"] = "spring"


def refusal(path: Path, raw: dict[str, Any]) -> str:
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    return str(caught.value)


def test_a_plan_of_this_version_is_read(tmp_path: Path) -> None:
    plan = made(tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    assert read_plan(path) == plan
    raw = json.loads(path.read_text())
    assert sealed(raw)["fingerprint"] == plan.fingerprint


@pytest.mark.parametrize("differs", [older, newer])
def test_a_plan_of_another_version_says_so(
    tmp_path: Path, differs: Callable[[dict[str, Any]], None]
) -> None:
    raw = json.loads(made(tmp_path).model_dump_json())
    differs(raw)
    path = tmp_path / "plan.json"
    said = refusal(path, sealed({**raw, "versions": {"tlscale": "0.9.7"}}))
    assert said.startswith(f"{path}: written by tlscale 0.9.7 and not changed since")
    assert f"tlscale {__version__} have other fields" in said
    assert "install that version again" in said
    assert "recipe.yaml with another output_dir" in said

    same = refusal(path, sealed({**raw, "versions": {"tlscale": __version__}}))
    assert f"written by another build of tlscale {__version__}" in same
    assert "a version of tlscale that it doesn't name" in refusal(path, sealed({**raw, "versions": {}}))


def test_a_changed_plan_is_not_taken_for_another_versions(tmp_path: Path) -> None:
    raw = json.loads(made(tmp_path).model_dump_json())
    raw["versions"] = {"tlscale": "0.9.7"}
    path = tmp_path / "plan.json"
    assert "changed after it was written" in refusal(path, {**raw, "seed": 5})
    newer(raw)
    assert "not a plan of this version" in refusal(path, raw)
    assert "not a plan of this version" in refusal(path, {"versions": 3})
