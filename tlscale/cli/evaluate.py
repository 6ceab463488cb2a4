"""`tlscale eval`: a run's own suites again, or evaluation tasks on a run or any model."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from tlscale.cli.execute import comparison, measurements, summary
from tlscale.errors import ExitCode, UsageError
from tlscale.evaluation.types import Measurement
from tlscale.launching.local import launch, worker_command
from tlscale.outer.scored import Asked, ready
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout

DATA = "TLSCALE_DATA"


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores a run's suites again, or tasks on a run's base and result or on any model."""
    if arguments.tasks is None:
        return _again(arguments)
    asked = Asked(
        _settings(arguments),
        arguments.overrides,
        "the command line",
        arguments.output,
        os.environ,
        arguments.offline,
    )
    layout, command = ready(arguments.model, asked)
    code = launch(command, quiet=arguments.json)
    if arguments.json:
        print(json.dumps(summary(layout)))
    else:
        print(f"\n{table(layout)}")
    if not code and arguments.gate:
        _gate(layout)
    return code


def _again(arguments: argparse.Namespace) -> int:
    if arguments.overrides or arguments.shots or arguments.predictor or arguments.output or arguments.limit:
        raise UsageError("a run's own suites are scored as its plan says; these settings go with --tasks")
    layout = RunLayout(Path(arguments.model))
    if not layout.plan.is_file():
        raise UsageError(
            f"{arguments.model}: not a run directory (it has no {layout.plan.name}); a model is scored on "
            "tasks: give --tasks A,B"
        )
    processes = read_plan(layout.plan).world.processes
    code = launch(worker_command(layout.root, "evaluate", processes=processes), quiet=arguments.json)
    if code:
        return code
    print(json.dumps(summary(layout)) if arguments.json else f"\n{comparison(layout)}")
    if arguments.gate:
        _gate(layout)
    return int(ExitCode.OK)


def _gate(layout: RunLayout) -> None:
    from tlscale.cli.judge import conclude, gate  # numpy and scipy

    gate(conclude(layout.root))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as a recipe's `evaluate` would."""
    found: dict[str, Any] = {"tasks": _listed(arguments.tasks)}
    if not found["tasks"]:
        raise UsageError("--tasks: name at least one task; `tlscale tasks` lists them")
    if arguments.shots is not None:
        found["shots"] = _numbers(arguments.shots, "--shots")
    if arguments.limit is not None:
        found["max_rows"] = arguments.limit
    if arguments.predictor is not None:
        found["predictor"] = arguments.predictor
    if arguments.chat:
        found["chat"] = True
    folder = arguments.data_dir or os.environ.get(DATA)
    if folder:
        found["data_dir"] = folder
    return found


def table(layout: RunLayout) -> str:
    """The last score of every task and metric, one column an arm, with the standard error over items."""
    found = measurements(layout)
    arms = [arm for arm in ("base", "tuned") if any(m.arm == arm for m in found.values())]
    keys = list(dict.fromkeys((m.suite, m.metric) for m in found.values() if m.arm in arms))
    width = max([len(suite) for suite, _ in keys] + [5])
    head = "".join(f"{arm:>20}" for arm in arms)
    lines = [str(layout.root), f"  {'task':<{width}}  {'metric':<16}{head}   items"]
    for suite, metric in keys:
        cells = [found.get((suite, metric, arm)) for arm in arms]
        shown = "".join(f"{_cell(one):>20}" for one in cells)
        items = next(one.n for one in cells if one is not None)
        lines.append(f"  {suite:<{width}}  {metric:<16}{shown}   {items:,}")
    return "\n".join(lines)


def _cell(one: Measurement | None) -> str:
    if one is None:
        return "-"
    return f"{one.value:.4f}" + ("" if one.stderr is None else f" +-{one.stderr:.4f}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str) -> list[int]:
    found = _listed(text)
    if not found or not all(part.isdecimal() for part in found):
        raise UsageError(f"{option}: {text!r} is no list of whole numbers, such as 0,5")
    return [int(part) for part in found]
