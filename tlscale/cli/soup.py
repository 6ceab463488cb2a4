"""`tlscale soup`: the results of several runs in one model, or one between its base and itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tlscale.errors import UsageError
from tlscale.launching.local import launch, worker_command
from tlscale.planning.compile import read_plan
from tlscale.runs.result import existing


def soup(arguments: argparse.Namespace) -> int:
    """Mixes and scores; exit code 5 when no mixture is any better than its members."""
    layouts = [existing(Path(run)) for run in arguments.run_dirs]
    for layout in layouts:
        read_plan(layout.plan)
    output = Path(arguments.output)
    if output.exists():
        raise UsageError(f"{output} exists; name another folder with --output, or remove it")
    asked = {
        "others": [str(layout.root) for layout in layouts[1:]],
        "method": arguments.method,
        "alphas": _numbers("--alpha", arguments.alpha),
        "density": _numbers("--density", arguments.density)[0],
        "output": str(output),
    }
    extra = ("--request", json.dumps(asked), *(("--json",) if arguments.json else ()))
    return launch(worker_command(layouts[0].root, "soup", *extra), quiet=False)


def _numbers(option: str, text: str) -> list[float]:
    """Shares above 0 and at most 1, apart by commas."""
    found = []
    for part in text.split(","):
        try:
            number = float(part)
        except ValueError:
            number = 0.0
        if not 0 < number <= 1:
            raise UsageError(f"{option}: {part.strip()!r}; allowed: numbers above 0 and at most 1")
        found.append(number)
    return found
