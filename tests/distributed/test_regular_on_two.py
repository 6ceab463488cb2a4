"""Averages, mixing with the start, curricula: the same on one process and two, averages on ZeRO-2 too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.distributed import kit
from tests.distributed.test_two_processes import losses
from tests.integration import tiny

pytestmark = pytest.mark.long

CASES: dict[str, dict[str, Any]] = {
    "ema": {"averaging": {"kind": "ema", "decay": 0.9}},
    "swa-zero2": {"averaging": {"kind": "swa", "start": 0.4, "every": 2}},
    "mixout": {"mixout": 0.3},
    "curriculum": {"curriculum": {"by": "loss", "epochs": 2}},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, kit.Outcome]]:
    root = tmp_path_factory.mktemp("regular")
    (root / "model").mkdir()
    model, rows = tiny.llama(root / "model"), tiny.sentences(root / "rows.jsonl", 40)
    found = []
    for processes in (1, 2):
        cases = []
        for name, train in CASES.items():
            hardware = {"processes": processes}
            if processes > 1 and name.endswith("zero2"):
                hardware["sharding"] = "zero2"
            more = {"max_steps": 7, "learning_rate": 3e-3, **train}
            cases.append(kit.recipe(name, model, rows, method="full", train=more, hardware=hardware))
        found.append(kit.run(cases, root / f"on-{processes}", processes=processes))
    return found


@pytest.mark.parametrize("name", CASES)
def test_one_process_equals_two(name: str, outcomes: list[dict[str, kit.Outcome]]) -> None:
    one, two = (found[name] for found in outcomes)
    assert not one.error, one.error
    assert not two.error, two.error
    assert kit.loss_difference(two, one) <= 2e-5
    assert kit.weight_difference(two, one) <= 2e-5


def adapted(root: Path, model: Path, processes: int) -> Path:
    """Source and target of ADDA, the source's rows weighted, ordered and mixed with the start."""
    columns = {"path": str(root / "sentences.jsonl"), "text": "text", "label": "label"}
    first = {"importance": {"kind": "covariate"}, "curriculum": {"by": "length"}, "mixout": 0.2}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    recipe = {
        "version": 1,
        "name": "adapted",
        "output_dir": str(root / f"adapted-{processes}"),
        "model": {"model_name_or_path": str(model), "task": "sequence-classification", "config": still},
        "data": {
            "train": columns, "test": columns, "max_length": 32,
            "unlabelled": {"path": columns["path"], "text": "prompt"},
        },
        "stages": [
            {
                "name": "source",
                "strategy": {"kind": "layer_decay", "decay": 1, "head": "pooled"},
                "train": first,
            },
            {
                "name": "target",
                "strategy": {"kind": "adda", "hidden": 16},
                "train": {"learning_rate": 1e-3, "max_steps": 5},
            },
        ],
        "train": {
            "num_train_epochs": 1, "train_batch_size": 12, "learning_rate": 3e-3, "logging_steps": 1,
        },
        "hardware": {"device": "cpu", "processes": processes},
    }  # fmt: skip
    path = root / f"adapted-{processes}.yaml"
    path.write_text(json.dumps(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(path)],
        cwd=kit.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root / f"adapted-{processes}"


def test_two_encoders_on_one_process_and_two(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    model = tiny.bert(tmp_path / "bert")
    tiny.sentences(tmp_path / "sentences.jsonl", 40)
    one, two = adapted(tmp_path, model, 1), adapted(tmp_path, model, 2)
    weights = [json.loads((run / "reckoned" / "source.json").read_text())["weights"] for run in (one, two)]
    assert weights[0] == pytest.approx(weights[1], rel=1e-6)
    assert len(losses(one)) == 9
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
    mine, theirs = (load_file(run / "stages" / "target" / "model.safetensors") for run in (one, two))
    for name in mine:
        assert (mine[name] - theirs[name]).abs().max() <= 5e-5, name
