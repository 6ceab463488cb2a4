"""`python -m tlscale.worker RUN_DIR_OR_RECIPE`, by hand, by `accelerate launch` or by Slurm.

Exit codes are those of `tlscale`; what became of the run also stands in the marker files DONE, FAILED and
STOPPED, because launchers don't pass exit codes on.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path

from tlscale.engine.signals import Stops, ignore
from tlscale.errors import INTERRUPTED, BusyError, ExitCode, Stopped, TlscaleError, WriteError
from tlscale.planning.compile import read_plan
from tlscale.runs.attempts import leave_to
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text
from tlscale.runs.result import mark_stopped

CHOICES = (
    "train",
    "evaluate",
    "verify",
    "inspect",
    "merge",
    "predict",
    "probe",
    "gradients",
    "read",
    "advise",
    "soup",
    "tasks",
    "replay",
    "publish",
    "examine",
)


def main(argv: list[str] | None = None) -> int:
    """Runs one action on a run directory; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tlscale.worker", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="a run directory with a plan.json in it, or a recipe")
    parser.add_argument("overrides", nargs="*", help="key=value over the recipe")
    parser.add_argument("--action", choices=CHOICES, default="train")
    parser.add_argument("--request", help="what the action needs to know, as one JSON object")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--attempt", help="the try that this process belongs to, on a cluster")
    arguments = parser.parse_args(argv)
    try:
        layout = _layout(arguments)
    except TlscaleError as error:
        print(f"\n{error}", file=sys.stderr)
        return int(error.exit_code)
    trains = arguments.action == "train"
    patient = arguments.attempt is not None
    stops = Stops(lambda name: _mark(layout, Stopped(f"a second signal, {name}")), patient=patient)
    try:
        # before the first heavy import, so that a signal is heard from the beginning
        with stops.heard() if trains else nullcontext():
            _act(arguments, layout, stops)
    except Stopped as error:
        ignore()
        print(f"\n{error}", file=sys.stderr)
        _mark(layout, error)
        return INTERRUPTED if error.reason == signal.SIGINT.name else int(error.exit_code)
    except TlscaleError as error:
        print(f"\n{error}", file=sys.stderr)
        if trains and layout.plan.is_file() and not isinstance(error, BusyError):
            # where a disk is full, the reason was printed at least
            with suppress(WriteError):
                write_text(layout.failed, f"{type(error).__name__}: {error}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        # a terminal interrupts this process and its parent, and the parent passes its own on
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return INTERRUPTED
    return int(ExitCode.OK)


def _layout(arguments: argparse.Namespace) -> RunLayout:
    given: Path = arguments.run_dir
    if given.is_dir() and not arguments.overrides:
        return RunLayout(given)
    from tlscale.worker.recipes import run_directory

    return run_directory(given, arguments.overrides)


def _act(arguments: argparse.Namespace, layout: RunLayout, stops: Stops) -> None:
    _quiet()
    from tlscale.engine.life import Life
    from tlscale.worker.run import ACTIONS, train

    plan = read_plan(layout.plan)
    if arguments.action == "train":
        life = Life(stops, attempt=arguments.attempt, guard=lambda: leave_to(layout, arguments.attempt))
        train(plan, layout, arguments.json, life=life)
    else:
        more = () if arguments.request is None else (arguments.request,)
        ACTIONS[arguments.action](plan, layout, arguments.json, *more)


def _mark(layout: RunLayout, error: Stopped) -> None:
    """Leaves the marker; ranks that leave together leave one."""
    if layout.plan.is_file():
        with suppress(WriteError):
            mark_stopped(layout, error)


def _quiet() -> None:
    """Libraries' chatter stays out of the way of what this run says.

    Some of it comes while they are imported, so this runs before they are; a filter also outlives a
    library that sets its logger's level itself.
    """
    for name in ("accelerate", "bitsandbytes.backends.cpu.ops", "DeepSpeed"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    sys.exit(main())
