"""Whole runs over two tasks: a shared adapter, heads of either kind, a suite for each, and the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_worker_runs import LORA, Run, logged, models, run, scores
from tlscale.cli import main
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout
from tlscale.worker.run import ACTIONS

__all__ = ["models", "run"]


@pytest.fixture
def data(models: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    """The colour that a sentence names, and whether a phrase names a car."""
    rows = [json.loads(line) for line in models["rows"].read_text().splitlines()]
    kinds = [{"text": r["anchor"], "label": "car" if "car" in r["anchor"] else "other"} for r in rows]
    (tmp_path / "kinds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kinds))
    colour = {"path": str(models["rows"]), "text": "text", "label": "label"}
    tasks = {"tasks": {"colour": colour, "kind": {"path": str(tmp_path / "kinds.jsonl")}}}
    return {"train": tasks, "test": tasks, "validation": tasks}


def learned(layout: RunLayout, colour: float = 0.9) -> None:
    found = scores(layout)
    assert found["colour tuned accuracy"] > colour, found
    assert found["kind tuned accuracy"] > 0.9, found
    both = (found["colour tuned accuracy"] + found["kind tuned accuracy"]) / 2
    assert found["target tuned accuracy"] == pytest.approx(both)
    lines = [json.loads(line) for line in layout.outcomes("tuned", "kind").read_text().splitlines()]
    assert [line["item"] for line in lines] == list(range(64))
    assert {line["prediction"] for line in lines} <= {"kind/car", "kind/other"}
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    assert sum(event["event"] == "scored" and event["arm"] == "tuned" for event in events) == 1


def test_a_shared_adapter_and_pcgrad(run: Run, data: dict[str, Any]) -> None:
    layout = run(
        "sequence-classification", data=data, strategy={**LORA, "head": "pooled"},
        train={"max_steps": 80, "eval_steps": 40, "multi_task": {"balance": "pcgrad", "temperature": 2.0}},
    )  # fmt: skip
    learned(layout)
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert all(0.0 <= event["conflicts"] <= 1.0 for event in steps)
    assert [event["step"] for event in events if event["event"] == "validated"] == [40, 80]
    labels = json.loads((layout.artifact("train") / "manifest.json").read_text())["labels"]
    assert labels == ["colour/black", "colour/blue", "colour/green", "colour/red", "kind/car", "kind/other"]


def test_native_heads_and_the_audit(
    run: Run, data: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    layout = run("sequence-classification", data=data, strategy={"kind": "full"}, train={"max_steps": 60})
    learned(layout, colour=0.4)
    assert logged(layout)
    assert main(["audit", str(layout.root)]) == 0
    capsys.readouterr()
    ACTIONS["predict"](read_plan(layout.plan), layout, False, '{"text": "a red car"}')
    colour, _, kind, sure = capsys.readouterr().out.split("\t")
    assert (colour.partition("/")[0], kind) == ("colour", "kind/car")
    assert float(sure) > 0.5
    drawn = run(
        "sequence-classification", data=data, strategy={"kind": "features"}, folder="drawn",
        train={"max_steps": 2, "multi_task": {"temperature": 3.0}},
    )  # fmt: skip
    assert main(["audit", str(drawn.root)]) == 2
    assert "rows are drawn by train.multi_task.temperature" in capsys.readouterr().err
