"""Masked language models on one process and on two: the same tokens are hidden, the same is learned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.distributed.test_two_processes import ROOT, ROWS, losses
from tests.integration import tiny

pytestmark = pytest.mark.long


def run(root: Path, model: Path, processes: int) -> Path:
    rows, output = tiny.sentences(root / "rows.jsonl", ROWS), root / f"on-{processes}"
    columns = {"path": str(rows), "text": "prompt"}
    recipe = {
        "version": 1,
        "name": "two",
        "output_dir": str(output),
        "model": {
            "model_name_or_path": str(model),
            "task": "masked-lm",
            "config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        },
        "data": {"train": columns, "test": columns, "replay": {**columns, "text": "text"}},
        "strategy": {"kind": "full"},
        "train": {
            "num_train_epochs": 2, "train_batch_size": 16, "learning_rate": 1e-3, "logging_steps": 1,
            "objective": {"replay": {"weight": 0.5}},
        },
        "hardware": {"device": "cpu", "processes": processes},
    }  # fmt: skip
    file = root / f"recipe-{processes}.yaml"
    file.write_text(json.dumps(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output


def test_one_process_equals_two(tmp_path: Path) -> None:
    model = tiny.masked_bert(tmp_path / "masked")
    one, two = run(tmp_path, model, 1), run(tmp_path, model, 2)
    assert len(losses(one)) == 6
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
    mine, theirs = (load_file(folder / "adapter" / "model.safetensors") for folder in (one, two))
    for name in mine:
        assert (mine[name] - theirs[name]).abs().max() <= 2e-5, name
    outcomes = [(folder / "outcomes" / "tuned-target.jsonl").read_text() for folder in (one, two)]
    counted = [[json.loads(row)["tokens"] for row in text.splitlines()] for text in outcomes]
    assert counted[0] == counted[1]
