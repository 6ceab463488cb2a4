"""Starts the driver of cases on one process or several, and reads what came of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tlscale.launching.local import ENVIRONMENT
from tlscale.models.artifact import PROBE

ROOT = Path(__file__).parents[2]
SECONDS = 1800
GRACE = 60
LAUNCHER = (
    *("accelerate.commands.launch", "--num_machines", "1", "--main_process_port", "0", "--multi_gpu"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": "all-linear"},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "modules_to_save": {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]},
}


@dataclass(frozen=True)
class Outcome:
    """What one case came to."""

    name: str
    losses: tuple[float, ...]
    verified: Mapping[str, Any]
    error: str
    refused: bool
    folder: Path
    mapped: tuple[Mapping[str, int], ...] = ()
    terms: tuple[str, ...] = ()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the stage `train` has learned, by the folder and the name in it."""
        folder, found = self.folder / "stages" / "train", {}
        for path in sorted(folder.rglob("*.safetensors")):
            if path.name != PROBE:
                place = path.parent.relative_to(folder)
                found |= {f"{place}/{name}": tensor for name, tensor in load_file(path).items()}
        return found


def recipe(name: str, model: Path, rows: Path, /, *, method: str = "lora", **parts: Any) -> dict[str, Any]:
    """A short causal language model recipe: 20 steps of 16 rows, unless `parts` say otherwise."""
    columns = {"path": str(rows), "prompt": "prompt", "completion": "completion"}
    strategy: dict[str, Any] = {"kind": "full"}
    if method != "full":
        strategy = {"kind": "peft", "method": "lora", "r": 4, **ADAPTERS[method]}
    train = {"max_steps": 20, "train_batch_size": 16, "learning_rate": 1e-2, "logging_steps": 1}
    return {
        "version": 1,
        "name": name,
        "model": {"model_name_or_path": str(model), "task": "causal-lm", **parts.pop("model", {})},
        "data": {"train": columns, "test": columns, "max_length": 32},
        "strategy": strategy,
        "train": {**train, **parts.pop("train", {})},
        "hardware": {"device": "cpu", "processes": 1, **parts.pop("hardware", {})},
        **parts,
    }


def run(cases: Sequence[Mapping[str, Any]], folder: Path, *, processes: int) -> dict[str, Outcome]:
    """The outcomes of `cases`, all run by one group of processes; a case that ends it has an error."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "cases.json"
    written.write_text(json.dumps(list(cases)))
    launcher = ("-m", *LAUNCHER, "--num_processes", str(processes)) if processes > 1 else ()
    argv = (sys.executable, *launcher, "-m", "tests.distributed.driver", str(written), str(folder))
    environment = {**ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            print(f"\nstopped after {SECONDS} s", file=log)
        finally:
            # asked kindly, the launcher takes its processes along, which have sessions of their own
            process.terminate()
            process.wait(GRACE)
    results = folder / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    found = {row["name"]: row for row in rows}
    tail = "\n".join((folder / "log").read_text().splitlines()[-30:])
    return {
        case["name"]: Outcome(
            case["name"],
            tuple(found.get(case["name"], {}).get("losses", ())),
            found.get(case["name"], {}).get("verified", {}),
            found.get(case["name"], {"error": f"ended before its result; log: {tail}"}).get("error", ""),
            bool(found.get(case["name"], {}).get("error")),
            folder / case["name"],
            tuple(found.get(case["name"], {}).get("mapped", ())),
            tuple(found.get(case["name"], {}).get("terms", ())),
        )
        for case in cases
    }


def loss_difference(mine: Outcome, other: Outcome) -> float:
    """Largest relative difference of a step's loss; infinite for different numbers of steps.

    A loss can be 0, of pairs in a step of one row.
    """
    if not mine.losses or len(mine.losses) != len(other.losses):
        return float("inf")
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(mine.losses, other.losses, strict=True))


def weight_difference(mine: Outcome, other: Outcome) -> float:
    """Largest difference of a saved weight; infinite where the names or shapes differ."""
    a, b = mine.tensors(), other.tensors()
    if not a or {n: t.shape for n, t in a.items()} != {n: t.shape for n, t in b.items()}:
        return float("inf")
    return max(float((a[name] - b[name]).abs().max()) for name in a)
