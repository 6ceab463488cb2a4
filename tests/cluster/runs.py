"""Small jobs for the cluster tests, and what became of them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.kit import ENDED, Cluster, wait_for

ROOT = Path(__file__).parents[2]
SAVE_STEPS = 5
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "job",
    "model": {"model_name_or_path": "builtin:pico", "task": "causal-lm"},
    "data": {
        "train": {"path": "builtin:code-train.jsonl", "text": "text"},
        "test": {"path": "builtin:code-test.jsonl", "text": "text"},
        "max_length": 64,
    },
    "strategy": {"kind": "peft", "method": "lora", "r": 4, "target_modules": ["q_proj", "v_proj"]},
    "train": {
        "learning_rate": 1e-3,
        "max_steps": 40,
        "train_batch_size": 4,
        "save_steps": SAVE_STEPS,
        "logging_steps": 1,
    },
    "evaluate": {"target": ["nll"], "max_rows": 2},
    "launch": {"slurm": {"environment": {"OMP_NUM_THREADS": "1"}, "preflight": False}},
}


@dataclass(frozen=True)
class Run:
    """A submitted run: its directory, and the numbers of its jobs by purpose."""

    cluster: Cluster
    folder: Path
    jobs: dict[str, str]

    @property
    def number(self) -> str:
        return self.jobs["train"]

    @property
    def state(self) -> str:
        return self.cluster.state(self.number)

    def rows(self, *kinds: str) -> list[dict[str, Any]]:
        """The run's events of some kinds, or all of them."""
        file = self.folder / "events.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [row for row in map(json.loads, lines) if not kinds or row["event"] in kinds]

    def steps(self) -> list[int]:
        """The numbers of the steps that were computed, in order, repetitions included."""
        return [row["step"] for row in self.rows("step")]

    def at_step(self, step: int, seconds: float = 120) -> None:
        """Waits until a step is done."""
        wait_for(
            lambda: max(self.steps(), default=0) >= step, seconds, f"step {step}; {self.log()[-2000:]}"
        )

    def ended(self, seconds: float = 200) -> str:
        """Waits for the training job's end; returns its state."""
        wait_for(
            lambda: self.state in ENDED | {""}, seconds, f"the end of {self.number}; {self.log()[-3000:]}"
        )
        return self.state

    def log(self) -> str:
        """What the training job said."""
        file = self.folder / "logs" / "slurm-train.log"
        return file.read_text(errors="replace") if file.is_file() else ""

    def tries(self) -> list[dict[str, Any]]:
        """The beginnings of the run's tries."""
        file = self.folder / "attempts.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [row for row in map(json.loads, lines) if row["event"] == "begin"]

    def repeated(self) -> int:
        """Steps that were computed more than once."""
        return len(self.steps()) - len(set(self.steps()))

    def lost(self) -> int:
        """Steps whose work was thrown away, because a try went on from an earlier save."""
        reached, lost = 0, 0
        for row in self.rows("step", "resumed"):
            lost += max(0, reached - row["step"]) if row["event"] == "resumed" else 0
            reached = row["step"]
        return lost

    def pause(self) -> float:
        """The longest time between two signs of progress: beginnings of tries, and the run's events."""
        times = sorted(row["time"] for row in [*self.tries(), *self.rows()])
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)

    def missing(self) -> int:
        """Steps up to the last that were never computed."""
        done = set(self.steps())
        return len(set(range(1, max(done, default=0) + 1)) - done)


def tlscale(
    cluster: Cluster, *arguments: str, check: bool = True, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user of the cluster does; the cluster's `env` may have more for it."""
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", *arguments],
        env={"HF_HUB_OFFLINE": "1", **cluster.env, "PYTHONPATH": str(ROOT)},
        cwd=cwd or cluster.folder / "work",
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def submit(cluster: Cluster, name: str, *words: str, recipe: dict[str, Any] | None = None) -> Run:
    """Submits the small recipe under a name; `words` are overrides and options."""
    work = cluster.folder / "work"
    file = work / f"{name}.yaml"
    file.write_text(json.dumps({**(recipe or RECIPE), "name": name}))
    split = words.index("--") if "--" in words else len(words)
    told = tlscale(cluster, "submit", str(file), *words[:split], "--json", *words[split:]).stdout
    answer = json.loads(told)
    return Run(cluster, Path(answer["run"]), answer["jobs"])
