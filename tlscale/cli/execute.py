"""`tlscale run`, `eval` and `verify`: everything that starts a worker on a run directory."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
from pathlib import Path

from tlscale.cli.inspect import must_fit, recipe_of
from tlscale.cli.publish import before_training, publish_run, verify_published
from tlscale.errors import ExitCode, Stopped, UsageError
from tlscale.evaluation.types import Measurement
from tlscale.launching.local import Command, WorkerFailed, launch, worker_command
from tlscale.outer.repeat import RunSpec, prepare, runs_of
from tlscale.planning.compile import read_plan
from tlscale.planning.render import headline
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines
from tlscale.runs.result import mark_stopped, read_stopped


def run(arguments: argparse.Namespace) -> int:
    """Runs a recipe once per seed, control arms first; goes on where an earlier try stopped."""
    recipe, recipe_file = recipe_of(arguments), Path(arguments.recipe)
    if (recipe.strategy or {}).get("kind") == "auto":
        from tlscale.cli.advise import settled  # it has to look at the data, which takes a worker

        recipe, recipe_file = settled(arguments)
    specs = runs_of(recipe, offline=arguments.offline)
    for spec in specs:
        must_fit(spec.plan)
    if arguments.dry_run:
        for spec in specs:
            for single in (*spec.arms, spec):
                print(shlex.join(_command(single, "train").argv))
        return int(ExitCode.OK)
    if recipe.publish is not None:
        before_training(specs[0].plan, offline=arguments.offline)
    from tlscale.cli.judge import conclude, described, gate  # numpy and scipy, not for a dry run

    for spec in specs:
        prepare(spec, recipe_file, changed=arguments.resume_changed)
        for single in (*spec.arms, spec):
            train(single, quiet=arguments.json)
    root = Path(recipe.output_dir or f"runs/{recipe.name}")
    verdict = conclude(root)
    if arguments.json:
        told: dict[str, object] = {"runs": [summary(spec.layout) for spec in specs]}
        print(json.dumps({**told, "verdict": verdict.model_dump(), **_publish(specs[0], quiet=True)}))
    else:
        for spec in specs:
            print(f"\n{comparison(spec.layout)}")
        print(f"\n{described(verdict, root)}")
        print(f"Next: tlscale verify {shlex.quote(str(specs[0].layout.root))}    {_how_to_load(specs[0])}")
        _publish(specs[0], quiet=False)
    if arguments.gate:
        gate(verdict)
    return int(ExitCode.OK)


def _publish(spec: RunSpec, *, quiet: bool) -> dict[str, object]:
    """Publishes the first seed's result where the recipe says so."""
    asked = spec.plan.recipe.publish
    return {} if asked is None else {"published": publish_run(spec.layout, asked, quiet=quiet)}


def train(spec: RunSpec, *, quiet: bool) -> None:
    """Runs one plan to its end.

    Raises:
        WorkerFailed: it did not get there.
    """
    if not quiet:
        print(f"plan      {headline(spec.plan)}   {spec.layout.plan}", flush=True)
        for note in spec.plan.notes:
            print(f"note      {note}", flush=True)
    layout = spec.layout
    for marker in (layout.failed, layout.stopped):
        marker.unlink(missing_ok=True)
    try:
        code = launch(_command(spec, "train"), quiet=quiet, apart=True)
    except Stopped as error:
        raise _stopped(layout, error) from error
    except WorkerFailed as error:
        if layout.failed.is_file():
            raise WorkerFailed(_why(layout), ExitCode.RUN_FAILED) from error
        again = "give the same command again, and it goes on from the last checkpoint"
        said = f"{error}; {again} in {layout.root}"
        raise WorkerFailed(said, error.exit_code) from error
    if not code:
        return
    # an agent in between has one code for all ends; the run directory knows which it was
    stopped = read_stopped(layout)
    if stopped is not None and stopped.reason == signal.SIGINT.name:
        raise KeyboardInterrupt
    raise stopped or WorkerFailed(_why(layout), code)


def _stopped(layout: RunLayout, asked: Stopped) -> Stopped:
    """The marker's account; a worker that had not begun to listen leaves none."""
    found = read_stopped(layout)
    if found is None and not layout.done.is_file():
        mark_stopped(layout, asked)
    return found or asked


def _why(layout: RunLayout) -> str:
    if layout.failed.is_file() and " hangs " in layout.failed.read_text(encoding="utf-8"):
        return f"the run in {layout.root} was ended: {layout.failed.read_text(encoding='utf-8').rstrip()}"
    return f"the run in {layout.root} failed" + f"; see {layout.failed}" * layout.failed.is_file()


def verify(arguments: argparse.Namespace) -> int:
    """Verifies a run's artifacts on fresh bases, or anybody's adapter on the Hub."""
    if arguments.run_dir.startswith(("hub:", "https://", "http://")):
        return verify_published(arguments.run_dir, as_json=arguments.json)
    layout = existing(arguments.run_dir)
    extra = ("--json",) if arguments.json else ()
    processes = read_plan(layout.plan).world.processes
    return launch(worker_command(layout.root, "verify", *extra, processes=processes), quiet=False)


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


def _command(spec: RunSpec, action: str) -> Command:
    return worker_command(spec.layout.root, action, processes=spec.plan.world.processes)


def existing(run_dir: str) -> RunLayout:
    layout = RunLayout(Path(run_dir))
    if not layout.plan.is_file():
        raise UsageError(f"{run_dir}: not a run directory (it has no {layout.plan.name})")
    return layout


def _how_to_load(spec: RunSpec) -> str:
    last = spec.plan.stages[-1].stage if spec.plan.stages else None
    if last is not None and last.adapter is not None:
        return f"Load: PeftModel.from_pretrained(base, {str(spec.layout.adapter)!r})"
    return f"Result: {spec.layout.adapter}" if last else ""
