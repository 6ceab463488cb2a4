"""Terms over the rows of all processes: one process equals two, an idle one and uneven shares included."""

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
    columns = {"path": str(rows), "text": "text", "label": "label"}
    recipe = root / f"recipe-{processes}.yaml"
    recipe.write_text(
        json.dumps(
            {
                "version": 1,
                "name": "two",
                "output_dir": str(output),
                "model": {
                    "model_name_or_path": str(model),
                    "task": "sequence-classification",
                    "config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
                },
                "data": {
                    "train": columns,
                    "test": columns,
                    "replay": {**columns, "span": [0.5, 1.0]},
                    "unlabelled": {"path": str(rows), "text": "prompt"},
                    "max_length": 32,
                },
                "strategy": {
                    "kind": "peft", "method": "lora", "r": 4, "head": "pooled",
                    "target_modules": "all-linear",
                },
                "train": {
                    "num_train_epochs": 2, "train_batch_size": 16, "learning_rate": 1e-2,
                    "logging_steps": 1,
                    "objective": {
                        "l2_sp": {"weight": 0.1}, "ewc": {"weight": 0.1, "rows": 5}, "replay": {},
                        "coral": {}, "mmd": {"weight": 0.5}, "mcc": {"weight": 0.5},
                        "cdan": {"weight": 0.5},
                    },
                },
                "hardware": {"device": "cpu", "processes": processes},
            }
        )
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(recipe)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output


def test_one_process_equals_two(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    model = tiny.bert(tmp_path / "bert")
    one, two = run(tmp_path, model, 1), run(tmp_path, model, 2)
    assert len(losses(one)) == 6
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
    mine, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    for name in mine:
        assert (mine[name] - theirs[name]).abs().max() <= 2e-5, name
