"""Runs that are made to fail: a tiny model, recipes, and processes that start at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.integration import tiny
from tests.integration.warm import Warm

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
ROWS = 36


@dataclass(frozen=True)
class Bench:
    """Where trials run; `python` is the program that starts them."""

    root: Path
    python: Path

    def recipe(self, folder: Path, **sections: Mapping[str, Any] | list[Any] | None) -> Path:
        """A recipe whose run takes 12 steps of 2 epochs and is saved every second one.

        `sections` are merged into it; what is no mapping stands in place of what is there.
        """
        columns = {"path": str(self.root / "rows.jsonl"), "prompt": "prompt", "completion": "completion"}
        raw: dict[str, Any] = {
            "version": 1,
            "name": "trial",
            "output_dir": "run",
            "model": {"model_name_or_path": str(self.root / "llama"), "task": "causal-lm"},
            "data": {"train": columns, "test": {**columns, "limit": 4}, "max_length": 32},
            "strategy": {
                "kind": "peft", "method": "lora", "r": 2, "lora_dropout": 0.1, "target_modules": ["q_proj"],
            },
            "train": {
                "num_train_epochs": 2, "train_batch_size": 6, "learning_rate": 1e-2, "logging_steps": 1,
                "save_steps": 2,
            },
            "hardware": {"device": "cpu"},
        }  # fmt: skip
        for name, values in sections.items():
            raw[name] = {**raw.get(name, {}), **values} if isinstance(values, Mapping) else values
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recipe.yaml"
        file.write_text(json.dumps(raw))
        return file

    def start(
        self, folder: Path, *arguments: str, fault: Mapping[str, Any] | None = None, cold: bool = False
    ) -> subprocess.Popen[str]:
        """`tlscale ARGUMENTS` with a fault in its workers; `cold` starts all of it in the ordinary way."""
        notes = folder / "notes"
        notes.unlink(missing_ok=True)
        environment = {**os.environ, "WARM_NOTES": str(notes), "PYTHONPATH": str(ROOT)}
        if fault is not None:
            environment |= {
                "WARM_HOOKED": "tlscale.worker", "WARM_HOOKS": "tests.faults.hooks",
                "FAULT": json.dumps(fault), "FAULT_TIME": str(folder / "when"),
            }  # fmt: skip
        if cold:
            environment["PYTHONPATH"] = f"{ROOT / 'tests' / 'faults' / 'site'}{os.pathsep}{ROOT}"
        python = sys.executable if cold else str(self.python)
        return subprocess.Popen(
            [python, "-m", "tlscale", *arguments], cwd=folder, env=environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self,
        folder: Path,
        *more: str,
        fault: Mapping[str, Any] | None = None,
        seconds: float = SECONDS,
        cold: bool = False,
    ) -> tuple[int, str]:
        """`tlscale run` to its end: the exit code and what it said on stderr; 124 when it never ends."""
        process = self.start(folder, "run", "recipe.yaml", "--offline", *more, fault=fault, cold=cold)
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for pid in left_over(folder):
                os.kill(pid, 9)
            process.kill()
            process.communicate()
            return 124, "did not end"
        return process.returncode, err


@contextmanager
def bench(root: Path) -> Iterator[Bench]:
    """A bench in the empty folder `root`."""
    root.mkdir(parents=True, exist_ok=True)
    tiny.llama(root / "llama")
    tiny.sentences(root / "rows.jsonl", ROWS)
    with Warm(root) as python:
        yield Bench(root, python)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What a run said of one kind."""
    path = folder / "run" / "events.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in rows if row["event"] == kind]


def last_losses(folder: Path) -> dict[int, float]:
    """The loss of each step, of the last time that it was taken."""
    return {event["step"]: event["loss"] for event in events(folder, "step")}


def adapters_equal(one: Path, other: Path) -> bool:
    """Whether two runs ended in the same bits."""
    mine, theirs = (load_file(f / "run" / "adapter" / "adapter_model.safetensors") for f in (one, other))
    return mine.keys() == theirs.keys() and all(bool((mine[n] == theirs[n]).all()) for n in mine)


def audited(folder: Path) -> bool:
    """Whether the ledger proves that every example came exactly once an epoch."""
    from tlscale.runs.ledger import audit

    made = audit(folder / "run" / "ledger" / "train", "train")
    return made is not None and not made.problems and made.complete == 2


def left_over(folder: Path) -> list[int]:
    """Processes that still work on a run."""
    notes = folder / "notes"
    started = [line.split() for line in notes.read_text().splitlines()] if notes.is_file() else []
    return [int(pid) for _, pid in started if alive(int(pid))]


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def none_left(folder: Path, seconds: float = 10.0) -> bool:
    """Whether all processes are gone soon."""
    until = time.monotonic() + seconds
    while left_over(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
