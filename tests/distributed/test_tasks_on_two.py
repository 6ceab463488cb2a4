"""Several tasks, and pairs of texts, over the rows of all processes: one process equals two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.distributed.test_two_processes import ROOT, losses
from tests.integration import tiny

pytestmark = pytest.mark.long

LORA = {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear", "head": "pooled"}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def run(root: Path, processes: int, strategy: dict[str, Any], multi_task: dict[str, Any] | None) -> Path:
    columns = {"text": "text", "label": "label"}
    things = {"text": "anchor", "label": "completion"}
    rows: dict[str, Any] = {"path": str(root / "rows.jsonl"), **columns}
    train: dict[str, Any] = {"num_train_epochs": 2, "train_batch_size": 16, "learning_rate": 1e-2}
    if multi_task is not None:
        rows = {"tasks": {"one": rows, "two": {"path": str(root / "more.jsonl"), **things}}}
        train["multi_task"] = multi_task
    output = root / f"on-{processes}"
    recipe = {
        "version": 1,
        "name": "two",
        "output_dir": str(output),
        "model": {
            "model_name_or_path": str(root / "bert"),
            "task": "sequence-classification",
            "config": WITHOUT_DROPOUT,
        },
        "data": {"train": rows, "test": rows, "max_length": 32},
        "strategy": strategy,
        "train": {**train, "logging_steps": 1},
        "hardware": {"device": "cpu", "processes": processes},
    }
    file = root / f"recipe-{processes}.yaml"
    file.write_text(json.dumps(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.parametrize(
    ("strategy", "multi_task"),
    [
        ({"kind": "layer_decay", "head": "pooled"}, {"balance": "pcgrad", "temperature": 3.0}),
        ({"kind": "layer_decay", "head": "pooled"}, {"balance": "uncertainty"}),
        ({"kind": "contrastive"}, None),
        (LORA, {"adapters": "both", "balance": "pcgrad"}),
    ],
    ids=["pcgrad", "uncertainty", "pairs", "adapters"],
)
def test_one_process_equals_two(strategy: dict[str, Any], multi_task: Any, tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    tiny.bert(tmp_path / "bert")
    tiny.sentences(tmp_path / "rows.jsonl", 40)
    tiny.sentences(tmp_path / "more.jsonl", 20, seed=1)
    one, two = (run(tmp_path, processes, strategy, multi_task) for processes in (1, 2))
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
    files = [path.relative_to(one) for path in (one / "adapter").rglob("*model.safetensors")]
    assert files
    for file in files:
        mine, theirs = (load_file(folder / file) for folder in (one, two))
        for name in mine:
            assert (mine[name] - theirs[name]).abs().max() <= 2e-5, (file, name)
