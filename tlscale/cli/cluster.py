"""The arguments of the commands for clusters, from submit to lint."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Adds: TypeAlias = Callable[[Commands, str, str, str], argparse.ArgumentParser]


def add(commands: Commands, command: Adds, recipe_command: Adds) -> None:
    """Adds the commands; `command` and `recipe_command` make one from its name, text and module."""
    _submit(commands, recipe_command)
    made = recipe_command(
        commands, "prefetch", "fill the Hub's cache with a recipe's model and data", "prefetch"
    )
    made.description = (made.description or "") + " For machines that can't reach the Hub."
    _watch(commands, command)
    _lint(commands, command)


def _submit(commands: Commands, recipe_command: Adds) -> None:
    made = recipe_command(
        commands, "submit", "run a recipe as Slurm jobs that come back by themselves", "submit"
    )
    made.usage = "tlscale submit [options] RECIPE [KEY=VALUE ...] [-- SBATCH_FLAG ...]"
    for name in ("nodes", "gpus-per-node", "processes-per-node", "cpus-per-process", "at-once"):
        made.add_argument(
            f"--{name}", type=_number, metavar="N", help=f"launch.slurm.{name.replace('-', '_')}"
        )
    for name in ("memory", "time", "partition", "account", "qos", "constraint", "exclude"):
        made.add_argument(f"--{name}", metavar=name.upper(), help=f"launch.slurm.{name}")
    made.add_argument("--evaluate", action="store_true", help="score again in a job of its own afterwards")
    made.add_argument("--gate", action="store_true", help="end the chain unless POSITIVE or EQUIVALENT")
    made.add_argument(
        "--sweep", type=_number, metavar="N", help="search the recipe's settings instead, by N jobs"
    )
    made.add_argument(
        "--push", metavar="HUB_ID", help="publish there in a last job; by default where the recipe says"
    )
    made.add_argument("--dry-run", action="store_true", help="print the scripts and the sbatch lines")
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")


def _watch(commands: Commands, command: Adds) -> None:
    made = command(commands, "status", "where runs stand now: progress, speed, why they wait", "watch")
    made.add_argument(
        "run_dir",
        metavar="RUN",
        nargs="?",
        help="a run, or a folder of runs; by default what was submitted from runs/",
    )
    made.add_argument("--json", action="store_true", help="print a JSON array")
    made = command(commands, "logs", "print what a submitted run says", "watch")
    made.add_argument("run_dir", metavar="RUN", help="a run directory")
    made.add_argument("--rank", type=_number, metavar="R", help="one rank's log alone")
    made.add_argument("--follow", action="store_true", help="go on until the job ends")
    made.add_argument("--json", action="store_true", help="print one JSON object for each line")
    made = command(commands, "cancel", "let a submitted run save, and end its jobs", "watch")
    made.add_argument("run_dir", metavar="RUN", help="a run directory")
    made.add_argument("--wait", type=_number, metavar="S", default=120, help="seconds to save in; 120")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made = command(commands, "resume", "submit a run that ended early again", "watch")
    made.add_argument("run_dir", metavar="RUN", help="a run directory")
    made.add_argument("--json", action="store_true", help="print one JSON object")


def _lint(commands: Commands, command: Adds) -> None:
    made = command(commands, "lint", "find known defects in anyone's batch scripts", "lint")
    made.add_argument("scripts", metavar="SCRIPT", nargs="+", help="batch scripts; they are only read")
    made.add_argument("--json", action="store_true", help="print one JSON object")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
