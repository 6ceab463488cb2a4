"""Two LoRA stages on a tiny Llama: the first one merged, the second kept clear of it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.test_worker_runs import LORA, Run, models, run, scores
from tlscale.engine.terms.orthogonal import overlap, read
from tlscale.runs.layout import RunLayout

__all__ = ["models", "run"]

FIRST = {"name": "first", "strategy": LORA, "train": {"max_steps": 20}}


def left(layout: RunLayout) -> float:
    """How much the second adapter's A overlaps with the first one's."""
    before, after = (read(layout.artifact(stage)) for stage in ("first", "second"))
    return float(overlap([(before[name], after[name]) for name in after]))


def test_a_stage_has_a_batch_of_its_own(run: Run, models: dict[str, Path]) -> None:
    second = {"name": "second", "strategy": LORA, "train": {"max_steps": 3, "train_batch_size": 2}}
    layout = run("causal-lm", strategy=None, stages=[{**FIRST, "train": {"max_steps": 3}}, second])
    batches = [stage["batch"] for stage in json.loads(layout.plan.read_text())["stages"]]
    totals = [b["micro"] * b["accumulation"] * b["world"] for b in batches]
    assert totals[1] == 2 < totals[0]


def test_a_fresh_adapter_stays_clear_of_one_that_was_merged(run: Run, models: dict[str, Path]) -> None:
    found = {}
    for name, objective in (("plain", {}), ("clear", {"o_lora": {"weight": 1.0}})):
        train = {"max_steps": 30, "objective": objective}
        second = {"name": "second", "carry": "merge", "strategy": LORA, "train": train}
        layout = run("causal-lm", strategy=None, stages=[FIRST, second], folder=name)
        config = json.loads((layout.artifact("second") / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"].endswith("stages/first-merged")
        measured = scores(layout)
        assert measured["target tuned nll"] < measured["target base nll"]
        found[name] = left(layout)
    assert found["clear"] < found["plain"] / 2
