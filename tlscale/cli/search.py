"""`tlscale submit --sweep N`: a search for settings, shared by the jobs of an array."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

from tlscale.cli.submit import Script, already_queued, show
from tlscale.cli.sweep import written
from tlscale.errors import ExitCode, UsageError
from tlscale.launching import queue
from tlscale.launching.search import Search, search_script
from tlscale.launching.status import SWEEP
from tlscale.outer.sweep import program
from tlscale.recipe.launch import Slurm
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json, write_text


def submit_search(arguments: argparse.Namespace, asked: Slurm) -> int:
    """Checks the search as a whole, then submits its jobs; with --dry-run only prints.

    Raises:
        UsageError: it asks for what a search can't have.
    """
    _check(arguments, asked)
    made = program(written(arguments))
    root = made.layout.root.absolute()
    layout = RunLayout(root)
    recipe = str(Path(arguments.recipe).absolute())
    command = ("sweep", recipe, *arguments.overrides, *(("--offline",) if asked.offline else ()))
    python = asked.python or sys.executable
    search = Search(made.recipe.name, root, arguments.sweep, command, asked, python)
    text, log = search_script(search), layout.job_log(f"{SWEEP}-%a")
    script = Script(SWEEP, text, layout.batch_script(SWEEP), log, arguments.passed_on)
    if arguments.dry_run:
        show([script])
        return int(ExitCode.OK)
    already_queued(root)
    script.log.parent.mkdir(parents=True, exist_ok=True)
    write_text(script.file, script.text)
    numbers = {SWEEP: queue.submit(script.argv(()))}
    told = {"submitted": round(time.time(), 3), "jobs": numbers, "runs": [], "flags": script.flags}
    write_json(layout.job, told)
    if arguments.json:
        print(json.dumps({"run": str(root), "jobs": numbers}))
    else:
        print(
            f"submitted {SWEEP} {numbers[SWEEP]}   {arguments.sweep} jobs share {made.sweep.trials} trials"
        )
        print(f"Next: tlscale status {shlex.quote(str(root))}; then open {made.layout.best}")
    return int(ExitCode.OK)


def _check(arguments: argparse.Namespace, asked: Slurm) -> None:
    if arguments.sweep < 1:
        raise UsageError("--sweep 0: no job would search; give the number of jobs that share the trials")
    if asked.nodes > 1:
        raise UsageError(
            f"--sweep: a trial runs on one machine, but {asked.nodes} are asked for; --nodes 1"
        )
    for name in ("evaluate", "gate", "push"):
        if getattr(arguments, name):
            raise UsageError(f"--{name}: not of a search; submit its best recipe with it afterwards")
