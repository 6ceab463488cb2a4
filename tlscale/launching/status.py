"""Where runs stand, from their directories and the queue: state, progress, speed, tries, what is due."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import UsageError
from tlscale.launching.queue import LIVE, WAITING, Queued
from tlscale.runs.attempts import Attempt, attempts, why_ended
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines
from tlscale.runs.result import read_stopped, seed_runs
from tlscale.runs.sweep import SweepLayout

SWEEP = "sweep"  # the purpose of jobs that search settings
SPEED_STEPS = 20  # the speed is that of so many logged steps


@dataclass(frozen=True)
class Submitted:
    """What was submitted last for a run: job numbers by purpose, and each element's run directories."""

    jobs: dict[str, str]
    runs: tuple[tuple[Path, ...], ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """One run; `left` is an estimate in seconds, `tries` counts those on a cluster."""

    run: str
    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    seconds_per_step: float | None = None
    left: float | None = None
    tries: int = 0
    restarts: int = 0
    repeated: int = 0
    why: str = ""
    job: str = ""
    machines: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def submitted(layout: RunLayout) -> Submitted | None:
    """The jobs of a run; `None` for one that was not submitted.

    Raises:
        UsageError: the file that names them is damaged.
    """
    if not layout.job.is_file():
        return None
    try:
        raw = json.loads(layout.job.read_text(encoding="utf-8"))
        runs = tuple(tuple(Path(run) for run in task) for task in raw["runs"])
        return Submitted(dict(raw["jobs"]), runs, tuple(raw["flags"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{layout.job}: damaged ({error}); submit the recipe again") from error


def found_runs(folder: Path) -> tuple[Path, ...]:
    """The runs in a folder of runs, or the folder itself where it is one."""
    if _is_run(folder):
        return (folder,)
    inside = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    return tuple(one for one in inside if _is_run(one))


def _is_run(folder: Path) -> bool:
    layout = RunLayout(folder)
    return layout.plan.is_file() or layout.job.is_file() or bool(seed_runs(folder))


def statuses(root: Path, queue: Sequence[Queued]) -> tuple[Status, ...]:
    """The run in `root`, or each of its seeds; `queue` is what Slurm knows of its jobs."""
    made = submitted(RunLayout(root))
    if made is None:
        return tuple(_status(seed, None) for seed in seed_runs(root) or (RunLayout(root),))
    if SWEEP in made.jobs:
        return _searching(root, made, queue)
    number = made.jobs.get("train", "")
    found = []
    for index, runs in enumerate(made.runs):
        mine = [one for one in queue if number in (one.number, one.array)]
        if len(made.runs) > 1:
            mine = [one for one in mine if one.element in (str(index), None)]
        found.append(_status(RunLayout(runs[-1]), mine[0] if mine else None, number))
    return tuple(found)


def _searching(root: Path, made: Submitted, queue: Sequence[Queued]) -> tuple[Status, ...]:
    """Each job of a search that waits or runs, or one row on how it ended."""
    live = [one for one in queue if one.state in LIVE]
    if not live:
        state = "done" if SweepLayout(root).best.is_file() else "unfinished"
        return (Status(run=str(root), state=state, job=made.jobs[SWEEP]),)
    return tuple(
        Status(
            run=str(root), state="waiting" if one.state in WAITING else one.state.lower(),
            why=one.why, job=one.number, machines=one.machines,
        )
        for one in live
    )  # fmt: skip


def _status(layout: RunLayout, job: Queued | None, number: str = "") -> Status:
    tries = attempts(layout)
    steps = [row for row in read_lines(layout.events) if row.get("event") in ("step", "resumed", "start")]
    last = next((row for row in reversed(steps) if row["event"] == "step"), None)
    state, why = _state(layout, job)
    pace = _pace(steps)
    running = state == "running" and last is not None and pace is not None
    return Status(
        run=str(layout.root),
        state=state,
        step=last["step"] if last else None,
        steps=last["steps"] if last else None,
        loss=last["loss"] if last else None,
        seconds_per_step=pace,
        left=pace * (last["steps"] - last["step"]) if running and last and pace else None,
        tries=len(tries),
        restarts=max(0, len(tries) - 1),
        repeated=_repeated(steps),
        why="; ".join(filter(None, (why, _before(layout, tries, state)))),
        job=job.number if job else number,
        machines=job.machines if job else "",
    )


def _before(layout: RunLayout, tries: Sequence[Attempt], state: str) -> str:
    """Why the last try ended, of a run that waits for its next; else why the newest one had to begin."""
    if not tries or state in ("done", "failed", "stopped"):
        return ""
    return (why_ended(layout) if state == "waiting" else tries[-1].after) or ""


def _state(layout: RunLayout, job: Queued | None) -> tuple[str, str]:
    """The state in a word, and what is awaited or was the end."""
    if layout.done.is_file():
        return "done", ""
    if job is not None and job.state in WAITING:
        return "waiting", job.why
    if job is not None and job.state in LIVE:
        return job.state.lower(), ""
    if layout.failed.is_file():
        return "failed", layout.failed.read_text(encoding="utf-8").strip().partition("\n")[0]
    stopped = read_stopped(layout)
    if stopped is not None:
        return "stopped", stopped.reason
    if job is not None:
        return job.state.lower(), ""
    return ("unfinished", "") if layout.events.is_file() else ("new", "")


def _pace(rows: Sequence[dict[str, Any]]) -> float | None:
    """Seconds a step over the last logged steps of the newest try, `None` before there are two."""
    since = max((i for i, row in enumerate(rows) if row["event"] != "step"), default=-1)
    recent = rows[since + 1 :][-SPEED_STEPS:]
    if len(recent) < 2 or recent[-1]["step"] <= recent[0]["step"]:
        return None
    return float((recent[-1]["time"] - recent[0]["time"]) / (recent[-1]["step"] - recent[0]["step"]))


def _repeated(rows: Sequence[dict[str, Any]]) -> int:
    """Steps that were computed more than once, since a try began where the last save was."""
    reached, repeated = 0, 0
    for row in rows:
        if row["event"] == "resumed":
            repeated += max(0, reached - int(row["step"]))
            reached = int(row["step"])
        elif row["event"] == "step":
            reached = int(row["step"])
    return repeated


def table(found: Sequence[Status]) -> str:
    """Runs side by side as text."""
    rows = [("run", "state", "progress", "speed", "loss", "restarts", "left", "")]
    for one in found:
        steps = f"{one.step:,} / {one.steps:,}" if one.step is not None and one.steps is not None else "-"
        speed = f"{one.seconds_per_step:.2g} s" if one.seconds_per_step is not None else "-"
        loss = f"{one.loss:.4g}" if one.loss is not None else "-"
        about = [f"job {one.job}"] if one.job else []
        about += [one.machines] if one.machines else []
        about += [one.why] if one.why else []
        about += [f"{one.repeated} steps repeated"] if one.repeated else []
        left = duration(one.left) if one.left is not None else "-"
        rows.append(
            (
                one.run,
                one.state,
                steps,
                speed,
                loss,
                str(one.restarts) if one.tries else "-",
                left,
                "; ".join(about),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def duration(seconds: float) -> str:
    """Seconds as hours and minutes, with the time of day at which they are over."""
    minutes = round(seconds / 60)
    end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
    text = f"{minutes // 60} h {minutes % 60:02}" if minutes >= 60 else f"{minutes} min"
    return f"{text} (to {end})"
