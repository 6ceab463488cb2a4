"""Pairs first, then a head: two stages on a tiny encoder, and its result for other labels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.integration import tiny
from tests.integration.test_worker_runs import Run, logged, models, run, scores

__all__ = ["models", "run"]

PAIRS = {"name": "pairs", "strategy": {"kind": "contrastive"}, "train": {"max_steps": 20}}
HEAD = {"name": "head", "strategy": {"kind": "features"}, "train": {"max_steps": 60}}


def test_pairs_then_a_head(run: Run) -> None:
    layout = run(
        "sequence-classification", stages=[PAIRS, HEAD], train={"learning_rate": 5e-3, "logging_steps": 1}
    )
    first = logged(layout)[:20]
    assert first[-1] < first[0] / 2
    assert logged(layout)[20] == pytest.approx(math.log(len(tiny.COLOURS)), rel=1e-5), "all are alike to it"
    found = scores(layout)
    assert found["target tuned accuracy"] > 0.9
    manifest = json.loads((layout.artifact("pairs") / "manifest.json").read_text())
    assert manifest["kind"] == "checkpoint"
    assert not any(name.startswith("head:") for name in manifest["initial"]), "the head rested"
    assert json.loads((layout.artifact("head") / "manifest.json").read_text())["kind"] == "head"


def test_a_result_is_a_base_for_other_labels(run: Run, tmp_path: Path) -> None:
    before = run("sequence-classification", stages=[PAIRS], folder="before")
    other = tmp_path / "things.jsonl"
    rows = [json.loads(line) for line in tiny.sentences(tmp_path / "r.jsonl", 64).read_text().splitlines()]
    other.write_text(
        "".join(json.dumps({"text": r["text"], "label": r["text"].split()[1]}) + "\n" for r in rows)
    )
    after = run(
        "sequence-classification",
        folder="after",
        model={"model_name_or_path": str(before.adapter)},
        data={"train": {"path": str(other), "text": "text", "label": "label"}},
        strategy={"kind": "features"},
    )
    head = load_file(after.adapter / "head.safetensors")
    assert len(head["output.weight"]) == len(tiny.THINGS)
    assert len(load_file(before.adapter / "head.safetensors")["output.weight"]) == len(tiny.COLOURS)
