"""`tlscale run`, `eval` and `verify`: everything that starts a worker on a run directory."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from tlscale.cli.inspect import must_fit, recipe_of
from tlscale.errors import ExitCode, RegressionError, TlscaleError, UsageError
from tlscale.evaluation.types import HIGHER_IS_BETTER, Measurement
from tlscale.launching.local import Command, launch, worker_command
from tlscale.outer.repeat import RunSpec, prepare, runs_of
from tlscale.plan.render import headline
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines


def run(arguments: argparse.Namespace) -> int:
    """Runs a recipe once per seed; goes on where an earlier try of the same plan stopped."""
    specs = runs_of(recipe_of(arguments), offline=arguments.offline)
    for spec in specs:
        must_fit(spec.plan)
    if arguments.dry_run:
        for spec in specs:
            print(shlex.join(_command(spec, "train").argv))
        return int(ExitCode.OK)
    for spec in specs:
        prepare(spec, Path(arguments.recipe))
        if not arguments.json:
            print(f"plan      {headline(spec.plan)}   {spec.layout.plan}", flush=True)
        code = launch(_command(spec, "train"), quiet=arguments.json)
        if code:
            raise WorkerError(f"the run in {spec.layout.root} failed; see {spec.layout.failed}", code)
    layouts = [spec.layout for spec in specs]
    if arguments.json:
        print(json.dumps([summary(layout) for layout in layouts]))
    else:
        for layout in layouts:
            print(f"\n{comparison(layout)}")
        print(f"\nNext: tlscale verify {specs[0].layout.root}    Load: {_how_to_load(specs[0])}")
    if arguments.gate:
        for layout in layouts:
            gate(layout)
    return int(ExitCode.OK)


class WorkerError(TlscaleError):
    """A worker failed; its exit code is passed on."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(code) if code in list(ExitCode) else ExitCode.RUN_FAILED


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores base and result of a run again."""
    layout = _existing(arguments.run_dir)
    code = launch(worker_command(layout.root, "evaluate"), quiet=arguments.json)
    if code:
        return code
    print(json.dumps(summary(layout)) if arguments.json else f"\n{comparison(layout)}")
    if arguments.gate:
        gate(layout)
    return int(ExitCode.OK)


def verify(arguments: argparse.Namespace) -> int:
    """Verifies a run's artifacts on fresh bases."""
    layout = _existing(arguments.run_dir)
    extra = ("--json",) if arguments.json else ()
    return launch(worker_command(layout.root, "verify", *extra), quiet=False)


def measurements(layout: RunLayout) -> dict[tuple[str, str, str], Measurement]:
    """The latest measurement of each (suite, metric, arm)."""
    rows = [Measurement.model_validate(row) for row in read_lines(layout.measurements)]
    return {(m.suite, m.metric, m.arm): m for m in rows}


def summary(layout: RunLayout) -> dict[str, object]:
    """A finished run as one JSON object."""
    rows = [m.model_dump() for m in measurements(layout).values()]
    return {"run": str(layout.root), "done": layout.done.is_file(), "measurements": rows}


def comparison(layout: RunLayout) -> str:
    """Base and tuned scores side by side, as a plain table."""
    found = measurements(layout)
    keys = list(dict.fromkeys((suite, metric) for suite, metric, _ in found))
    lines = [
        f"{layout.root}",
        f"  {'suite':<10} {'metric':<12} {'base':>10} {'tuned':>10} {'change':>10}   items",
    ]
    for suite, metric in keys:
        base, tuned = found.get((suite, metric, "base")), found.get((suite, metric, "tuned"))
        cells = [f"{m.value:.4f}" if m else "-" for m in (base, tuned)]
        change = f"{tuned.value - base.value:+.4f}" if base and tuned else "-"
        items = (tuned or base or next(iter(found.values()))).n
        lines.append(f"  {suite:<10} {metric:<12} {cells[0]:>10} {cells[1]:>10} {change:>10}   {items:,}")
    arms = {m.arm: m.predictor for m in found.values() if m.suite == "target"}
    lines.append(f"  {', '.join(f'{arm}: {how}' for arm, how in arms.items())}")
    return "\n".join(lines)


def gate(layout: RunLayout) -> None:
    """Refuses a result that scores worse than its base on the target's first metric.

    Raises:
        RegressionError: it does. A point estimate, without an interval.
    """
    found = measurements(layout)
    for (suite, metric, arm), base in found.items():
        tuned = found.get((suite, metric, "tuned"))
        if suite != "target" or arm != "base" or tuned is None:
            continue
        gain = tuned.value - base.value if HIGHER_IS_BETTER[metric] else base.value - tuned.value
        if gain < 0:
            raise RegressionError(
                f"{layout.root}: target {metric} went from {base.value:.4f} to "
                f"{tuned.value:.4f}; worse than the base"
            )
        return


def _command(spec: RunSpec, action: str) -> Command:
    return worker_command(spec.layout.root, action, processes=spec.plan.world.processes)


def _existing(run_dir: str) -> RunLayout:
    layout = RunLayout(Path(run_dir))
    if not layout.plan.is_file():
        raise UsageError(f"{run_dir}: not a run directory (it has no {layout.plan.name})")
    return layout


def _how_to_load(spec: RunSpec) -> str:
    last = spec.plan.stages[-1].stage if spec.plan.stages else None
    if last is not None and last.adapter is not None:
        return f"PeftModel.from_pretrained(base, {str(spec.layout.adapter)!r})"
    return f"{spec.layout.adapter}"
