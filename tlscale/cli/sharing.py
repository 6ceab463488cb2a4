"""The parsers of `tlscale push`, `reproduce` and `runs`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command = Callable[[Commands, str, str, str], argparse.ArgumentParser]


def add(commands: Commands, command: Command) -> None:
    """Adds them; `command` makes the parser of one command in a module of `cli`."""
    _push(commands, command)
    _again(commands, command)


def _push(commands: Commands, command: Command) -> None:
    made = command(commands, "push", "publish a finished run on the Hub, verified there first", "publish")
    made.add_argument("run_dir", metavar="RUN", help="a run directory")
    made.add_argument("--to", metavar="ORG/NAME", help="the model's id on the Hub; by default the recipe's")
    who = made.add_mutually_exclusive_group()
    who.add_argument(
        "--private", action="store_true", default=None, help="only its owners see it (default)"
    )
    who.add_argument("--public", dest="private", action="store_false", help="everybody sees it")
    made.add_argument("--license", metavar="NAME", help="the result's licence, by the Hub's name")
    made.add_argument("--base", metavar="ORG/NAME", help="where a base from a folder is on the Hub")
    made.add_argument("--merged", action="store_true", help="base and adapter as one checkpoint")
    made.add_argument("--gguf-ready", action="store_true", help="merged, and checked to convert to GGUF")
    made.add_argument(
        "--despite-verdict", metavar="REASON", help="publish anyway; the reason is on the card"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")


def _again(commands: Commands, command: Command) -> None:
    made = command(commands, "reproduce", "do a published run, or one of yours, again and compare", "again")
    made.add_argument("what", metavar="WHAT", help="hub:ORG/NAME, or a run directory")
    made.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="your paths, e.g. data.train.path=rows.csv"
    )
    made.add_argument("-o", "--output", metavar="FOLDER", help="the new run; by default runs/NAME-again")
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made = command(
        commands, "runs", "what runs came to: verdict, scores, where published, what they stand on", "again"
    )
    made.add_argument("folders", nargs="*", metavar="FOLDER", help="where the runs are; by default runs")
    made.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE", help="only those; also != < > <= >= ~"
    )
    made.add_argument("--json", action="store_true", help="print a JSON array")
