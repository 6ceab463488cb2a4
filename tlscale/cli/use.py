"""`tlscale merge` and `tlscale predict`: what can be done with a finished run's result."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tlscale.errors import UsageError
from tlscale.launching.local import launch, worker_command
from tlscale.planning.compile import read_plan
from tlscale.planning.inputs import input_column
from tlscale.runs.layout import RunLayout
from tlscale.runs.result import existing, mergeable
from tlscale.sources import inputs


def merge(arguments: argparse.Namespace) -> int:
    """Merges the run's adapter into its base; exit code 2 when there is none."""
    layout = existing(Path(arguments.run_dir))
    read_plan(layout.plan)
    mergeable(layout, layout.merged if arguments.output is None else Path(arguments.output))
    return _work(layout, "merge", arguments, {"output": arguments.output})


def predict(arguments: argparse.Namespace) -> int:
    """Answers one input, the rows of a file, or lines of stdin."""
    layout = existing(Path(arguments.run_dir))
    plan = read_plan(layout.plan)
    if arguments.text is not None and arguments.file is not None:
        raise UsageError("give one of TEXT and --file; with neither, lines of stdin are read")
    if arguments.column is not None and arguments.file is None:
        raise UsageError("--column names a column of a --file")
    if arguments.file is not None:
        inputs.input_column(arguments.file, arguments.column, input_column(plan))
    elif arguments.text is None and sys.stdin.isatty():
        print("One input a line; end with Ctrl-D.", file=sys.stderr)
    asked = {name: getattr(arguments, name) for name in ("text", "file", "column", "max_new_tokens")}
    return _work(layout, "predict", arguments, asked)


def _work(layout: RunLayout, action: str, arguments: argparse.Namespace, request: dict[str, object]) -> int:
    extra = ("--request", json.dumps(request), *(("--json",) if arguments.json else ()))
    return launch(worker_command(layout.root, action, *extra), quiet=False)
