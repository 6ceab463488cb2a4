"""`tlscale status`, `logs`, `cancel` and `resume`: everything about jobs that were submitted."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from tlscale.errors import ExitCode, UsageError
from tlscale.launching import queue, status
from tlscale.launching.slurm import sbatch_argv
from tlscale.launching.status import SWEEP, Submitted
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json, write_text
from tlscale.runs.result import seed_runs

CANCEL = "cancel\n"
LOOK_SECONDS = 1.0
LAST_BYTES = 64 * 1024


def show(arguments: argparse.Namespace) -> int:
    """Shows one run, every run of a folder, or without either what was submitted from here."""
    folder = Path(arguments.run_dir or "runs")
    roots = status.found_runs(folder)
    if not roots:
        raise UsageError(f"{folder}: no run is in it; name a run directory, or a folder of them")
    if arguments.run_dir is None:
        roots = tuple(root for root in roots if RunLayout(root).job.is_file())
    found = [one for root in roots for one in status.statuses(root, _queued(root))]
    if arguments.json:
        print(json.dumps([one.as_dict() for one in found]))
    else:
        print(status.table(found) if found else "nothing was submitted from here")
    return int(ExitCode.OK)


def logs(arguments: argparse.Namespace) -> int:
    """Prints a run's log: of the job, each line tagged with its rank, or of one rank."""
    layout = _layout(arguments.run_dir)
    if arguments.rank is not None:
        file = layout.log(arguments.rank)
        there = sorted(layout.log(0).parent.glob("rank-*.log"))
    else:
        there = sorted(layout.job_log("*").parent.glob("slurm-*.log"))
        file = layout.job_log("train") if layout.job_log("train").is_file() or not there else there[0]
    if not file.is_file():
        known = f"there are: {', '.join(one.name for one in there)}" if there else "the job has not begun"
        raise UsageError(f"{file}: no such log; {known}")
    for text in _read(file, follow=arguments.follow, layout=layout):
        print(json.dumps({"log": str(file), "text": text}) if arguments.json else text, flush=True)
    return int(ExitCode.OK)


def _read(file: Path, *, follow: bool, layout: RunLayout) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        if follow and file.stat().st_size > LAST_BYTES:
            lines.seek(file.stat().st_size - LAST_BYTES)
            lines.readline()
        over = False
        while True:
            for line in lines:
                yield line.rstrip("\n")
            if not follow or over:
                return
            over = not _live(layout.root)
            time.sleep(LOOK_SECONDS)


def cancel(arguments: argparse.Namespace) -> int:
    """Asks a run's jobs to save and end, and ends those that don't."""
    root = _layout(arguments.run_dir).root
    made = _submitted(root)
    jobs = _live(root)
    waiting = [one.number for one in jobs if one.state in queue.WAITING]
    queue.cancel(waiting)
    trains = made.jobs.get("train")
    saving = [one for one in jobs if one.number not in waiting and trains in (one.number, one.array)]
    queue.cancel([one.number for one in jobs if one.number not in waiting and one not in saving])
    running = saving
    end = time.monotonic() + arguments.wait
    while running and time.monotonic() < end:
        for one in running:
            _ask_to_stop(made, one)
        time.sleep(LOOK_SECONDS)
        running = [
            one
            for one in _live(root)
            if one.state not in queue.WAITING and trains in (one.number, one.array)
        ]
    left = [one.number for one in _live(root)]
    queue.cancel(left)
    ended, late = [one.number for one in jobs], [one.number for one in running]
    if arguments.json:
        print(json.dumps({"run": str(root), "cancelled": ended, "unsaved": late}))
    elif not jobs:
        print(f"{root}: no job waits or runs")
    else:
        said = f"; {', '.join(late)} did not save in {arguments.wait} s" if late else ""
        print(f"cancelled {', '.join(ended)}{said}")
        print(f"Next: tlscale resume {shlex.quote(str(root))}")
    return int(ExitCode.OK)


def _ask_to_stop(made: Submitted, job: queue.Queued) -> None:
    if job.state != "RUNNING":
        return
    runs = made.runs[int(job.element or 0)]
    unfinished = [run for run in runs if not RunLayout(run).done.is_file()]
    for run in unfinished[:1]:
        stop = RunLayout(run).stop
        if not stop.is_file() or stop.read_text(encoding="utf-8") != CANCEL:
            write_text(stop, CANCEL)


def resume(arguments: argparse.Namespace) -> int:
    """Submits a run's scripts again; each run goes on from its last save."""
    root = _layout(arguments.run_dir).root
    made, layout = _submitted(root), RunLayout(root)
    live = _live(root)
    if live:
        raise UsageError(f"{root}: job {live[0].number} of this run is {live[0].state.lower()} already")
    if made.runs and all(RunLayout(run).done.is_file() for task in made.runs for run in task):
        raise UsageError(f"{root}: the run is done; tlscale report {shlex.quote(str(root))} judges it")
    numbers: dict[str, str] = {}
    for name in made.jobs:
        elements = name == SWEEP or (name == "train" and len(made.runs) > 1)
        log = layout.job_log(f"{name}-%a" if elements else name)
        argv = sbatch_argv(
            layout.batch_script(name), log, flags=made.flags, after=list(numbers.values())[-1:]
        )
        numbers[name] = queue.submit(argv)
    raw = json.loads(layout.job.read_text(encoding="utf-8"))
    write_json(layout.job, {**raw, "submitted": round(time.time(), 3), "jobs": numbers})
    if arguments.json:
        print(json.dumps({"run": str(root), "jobs": numbers}))
    else:
        print("submitted " + " -> ".join(f"{name} {number}" for name, number in numbers.items()))
    return int(ExitCode.OK)


def _layout(run_dir: str) -> RunLayout:
    layout = RunLayout(Path(run_dir))
    if not (layout.plan.is_file() or layout.job.is_file() or seed_runs(layout.root)):
        raise UsageError(f"{run_dir}: not a run directory (it has no {layout.plan.name})")
    return layout


def _submitted(root: Path) -> Submitted:
    made = status.submitted(RunLayout(root))
    if made is None:
        raise UsageError(f"{root}: was not submitted; tlscale submit RECIPE starts it as Slurm jobs")
    return made


def _queued(root: Path) -> tuple[queue.Queued, ...]:
    """The jobs of a run as Slurm knows them; none for a run that was not submitted."""
    made = status.submitted(RunLayout(root))
    return () if made is None else queue.queued(list(made.jobs.values()))


def _live(root: Path) -> list[queue.Queued]:
    return [one for one in _queued(root) if one.state in queue.LIVE]
