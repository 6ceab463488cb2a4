"""`tlscale audit` and `tlscale replay`: what a run consumed, and a step whose numbers went wrong."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tlscale.errors import ExitCode, UsageError
from tlscale.launching.local import launch, worker_command
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout
from tlscale.runs.ledger import Audit
from tlscale.runs.ledger import audit as audit_stage
from tlscale.runs.result import existing


def audit(arguments: argparse.Namespace) -> int:
    """Proves from a run's ledger that every epoch took every example exactly once."""
    layout = existing(Path(arguments.run_dir))
    folders = sorted(layout.ledger("").glob("*")) if layout.ledger("").is_dir() else []
    drawn = _drawn(layout)
    kept = [folder for folder in folders if folder.name not in drawn]
    found = [made for folder in kept if (made := audit_stage(folder, folder.name)) is not None]
    if drawn and not found:
        raise UsageError(
            f"{layout.root}: {', '.join(drawn)}: rows are drawn by train.multi_task.temperature, so an "
            "epoch is not meant to take each of them once"
        )
    if not found:
        raise UsageError(f"{layout.root}: no stage has taken a step, so there is no ledger to look at")
    good = not any(made.problems for made in found)
    if arguments.json:
        rows = [{**asdict(made), "exactly_once": not made.problems} for made in found]
        print(json.dumps({"run": str(layout.root), "exactly_once": good, "stages": rows}))
    else:
        for made in found:
            print(_described(made))
    return int(ExitCode.OK if good else ExitCode.NOT_VERIFIED)


def _drawn(layout: RunLayout) -> tuple[str, ...]:
    """Stages whose epochs draw rows instead of taking each once."""
    stages = read_plan(layout.plan).stages
    return tuple(p.stage.name for p in stages if p.stage.tasks and p.stage.tasks.temperature != 1.0)


def _described(made: Audit) -> str:
    again = f", {made.repeated:,} of them done again after a kill" if made.repeated else ""
    attempts = f"{made.attempts:,} {'attempt' if made.attempts == 1 else 'attempts'}"
    lines = [f"stage {made.stage}: {made.steps:,} steps in {attempts}{again}, {made.examples:,} examples"]
    for number, (once, twice, never) in enumerate(made.epochs, start=1):
        text = f"  epoch {number}: {once:,} examples once"
        text += f", {twice:,} more than once" if twice else ""
        text += f", {never:,} not taken" if never else ""
        lines.append(text)
    if made.problems:
        lines += [f"  NOT exactly once: {problem}" for problem in made.problems]
    else:
        lines.append(f"  exactly once: yes, in {made.complete:,} whole epochs" + _rest(made))
    return "\n".join(lines)


def _rest(made: Audit) -> str:
    begun = len(made.epochs) - made.complete
    return " and as far as the last one went" if begun else ""


def replay(arguments: argparse.Namespace) -> int:
    """Repeats a step whose loss or gradient was not finite, row by row."""
    layout = existing(Path(arguments.run_dir))
    kept = sorted(layout.replay("").glob("*/step-*")) if layout.replay("").is_dir() else []
    if not kept:
        raise UsageError(f"{layout.root}: no step is kept; one is when its loss or gradient is not finite")
    extra = ("--json",) if arguments.json else ()
    return launch(worker_command(layout.root, "replay", *extra), quiet=False)
