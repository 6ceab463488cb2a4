"""Stages on a tiny Llama: an earlier adapter kept, merged or left behind, and each stage measured."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from tests.integration.test_worker_runs import LORA, Run, models, run, scores
from tlscale.engine.terms.orthogonal import overlap, read
from tlscale.models.artifact import ADAPTER_WEIGHTS, digest, read_manifest
from tlscale.report.blocks import Table
from tlscale.report.read import read as read_run
from tlscale.report.standing import stages as told
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines

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


def two(run: Run, folder: str, how: dict[str, str]) -> RunLayout:
    """Two LoRA stages of three steps; `how` the second one begins."""
    first, second = (
        {"name": name, "strategy": LORA, "train": {"max_steps": 3}} for name in ("first", "second")
    )
    return run("causal-lm", strategy=None, stages=[first, {**second, **how}], folder=folder)


def test_an_adapter_goes_on_or_is_left_behind(run: Run, models: dict[str, Path]) -> None:
    kept, fresh, alone = (
        two(run, name, how)
        for name, how in (
            ("kept", {"carry": "keep"}), ("fresh", {"carry": "fresh"}), ("alone", {"starts_from": "base"}),
        )
    )  # fmt: skip
    for layout in (kept, fresh, alone):
        config = json.loads((layout.artifact("second") / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(models["causal-lm"])
    first = load_file(kept.artifact("first") / ADAPTER_WEIGHTS)
    began = {f"adapter:{name}": digest(tensor) for name, tensor in first.items()}
    assert read_manifest(kept.artifact("second"))["initial"] == began
    # a fresh one is what it would be without the stage before
    hashes = [read_manifest(one.artifact("second"))["files"][ADAPTER_WEIGHTS] for one in (fresh, alone)]
    assert hashes[0] == hashes[1] != read_manifest(kept.artifact("second"))["files"][ADAPTER_WEIGHTS]


def test_each_stage_is_measured_and_none_on_the_test_rows(run: Run, models: dict[str, Path]) -> None:
    data = {"validation_split": 0.25, "retention": {"path": str(models["more"]), "text": "text"}}
    steps = {"max_steps": 8}
    stages = [
        {"name": "read", "strategy": {"kind": "full"}, "train": {**steps, "learning_rate": 1e-3}},
        {"name": "adapt", "strategy": LORA, "train": steps},
        {"name": "again", "carry": "merge", "strategy": LORA, "train": steps},
    ]
    layout = run("causal-lm", strategy=None, stages=stages, data=data)
    rows = list(read_lines(layout.standing.measurements))
    found = {(row["arm"], row["suite"]): row["value"] for row in rows if row["metric"] == "nll"}
    assert set(found) == {
        *((name, "validation") for name in ("base", "read", "adapt", "again")),
        *((name, "retention") for name in ("read", "adapt")),
    }
    assert found["again", "validation"] < found["base", "validation"]
    looked = [row for row in read_lines(layout.events) if row["event"] == "scored"]
    assert sum(row["arm"] == "tuned" and row["split"] == "test" for row in looked) == 1
    assert all(row["split"] != "test" for row in read_lines(layout.standing.events))
    section = told(read_run(layout.root))
    assert section is not None
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["the base", "read", "adapt", "again"]
    begins = ["", "from base", "from read", "from adapt, whose adapter is merged into the base"]
    assert [row[1] for row in table.rows] == begins
    assert all(cell and cell != "not measured" for row in table.rows[1:] for cell in row)
    assert f"{found['read', 'validation']:.3f}" in table.rows[1][4]
    assert f"{found['read', 'retention']:.3f}" in table.rows[1][5]
