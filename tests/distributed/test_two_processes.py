"""The same recipe on one process and on two, started by the real `accelerate launch`: the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.integration import tiny

ROOT = Path(__file__).parents[2]
# The last step of an epoch has a single row, so that one of two processes has none.
ROWS = 33


def run(root: Path, model: Path, processes: int) -> Path:
    rows = tiny.sentences(root / "rows.jsonl", ROWS)
    output = root / f"on-{processes}"
    columns = {"path": str(rows), "prompt": "prompt", "completion": "completion"}
    recipe = root / f"recipe-{processes}.yaml"
    recipe.write_text(
        json.dumps(
            {
                "version": 1,
                "name": "two",
                "output_dir": str(output),
                "model": {"model_name_or_path": str(model), "task": "causal-lm"},
                "data": {"train": columns, "test": columns, "max_length": 32},
                "strategy": {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear"},
                "train": {
                    "num_train_epochs": 2,
                    "train_batch_size": 16,
                    "learning_rate": 1e-2,
                    "logging_steps": 1,
                },
                "hardware": {"device": "cpu", "processes": processes},
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(recipe)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output


def losses(folder: Path) -> list[float]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


def test_one_process_equals_two(tmp_path: Path) -> None:
    model = tiny.llama(tmp_path / "llama")
    one, two = run(tmp_path, model, 1), run(tmp_path, model, 2)
    assert len(losses(one)) == 6
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    mine, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert (mine[name] - theirs[name]).abs().max() <= 1e-5, name
    outcomes = [
        (folder / "outcomes" / "tuned-target.jsonl").read_text().splitlines() for folder in (one, two)
    ]
    assert [json.loads(a)["where"] for a in outcomes[0]] == [json.loads(b)["where"] for b in outcomes[1]]
