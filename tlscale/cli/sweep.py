"""`tlscale sweep`: searches a recipe's settings by runs on its validation rows."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any

from tlscale.cli.inspect import recipe_of
from tlscale.errors import ExitCode, UsageError
from tlscale.outer.chosen import write_best
from tlscale.outer.sweep import program, run
from tlscale.outer.trials import Asked
from tlscale.recipe.load import read
from tlscale.recipe.parse import apply_overrides
from tlscale.recipe.search import written_space
from tlscale.report.sweeps import Search, Trial, front


def sweep(arguments: argparse.Namespace) -> int:
    """Tries settings, prints every trial and the best, and writes the best recipe."""
    made = program(written(arguments), trials=arguments.trials, spaces=_spaces(arguments.set))
    if arguments.dry_run:
        print(f"{made.layout.root}: {made.sweep.trials} trials for each of {', '.join(made.arms)}")
        for arm in made.arms:
            for name, space in made.search(arm)[1].items():
                print(f"  {arm:<12} {name:<32} {space.model_dump_json(exclude_defaults=True)}")
        return int(ExitCode.OK)
    result = run(made, (lambda arm, trial: None) if arguments.json else say)
    write_best(made, result)
    from tlscale.report.sweep_page import render  # only a finished sweep has a page

    page = render(made.layout.root, result)
    if arguments.json:
        print(result.model_dump_json())
        return int(ExitCode.OK)
    for search in result.searches:
        print(f"\n{table(search)}")
    left = sum(trial.state == "running" for search in result.searches for trial in search.trials)
    if left:
        print(f"\n{left} still running in other processes; the last to end writes the best of all")
    print(f"\nOpen {page}")
    print(f"Next: tlscale run {shlex.quote(str(made.layout.best))}")
    return int(ExitCode.OK)


def written(arguments: argparse.Namespace) -> Asked:
    """The recipe of the command line as it was written, with its overrides.

    Raises:
        RecipeError: it has problems.
    """
    recipe_of(arguments)
    raw, _ = apply_overrides(read(Path(arguments.recipe)), arguments.overrides)
    return Asked(raw, arguments.recipe, dict(os.environ), arguments.offline)


def _spaces(given: list[str] | None) -> dict[str, Any]:
    found = {}
    for one in given or ():
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {one}: write KEY=low..high, KEY=log:low..high or KEY=a,b,c")
        try:
            found[name] = written_space(text)
        except ValueError as error:
            raise UsageError(f"--set {one}: {error}") from error
    return found


def say(arm: str, trial: Trial) -> None:
    """One line for a trial that has ended."""
    settings = ", ".join(f"{name}={shown(value)}" for name, value in trial.parameters.items())
    what = f"{trial.value:.4f}" if trial.value is not None else trial.state
    reason = f"   {trial.reason}" if trial.reason else ""
    print(
        f"trial     {arm} {trial.number:>3}  {what:>9}  {trial.seconds or 0:6.0f} s  {settings}{reason}",
        flush=True,
    )


def shown(value: object) -> str:
    """A setting as short as it can be written."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def table(search: Search) -> str:
    """The trials of an arm, best first, as plain text."""
    sign = -1.0 if search.higher_is_better else 1.0
    ranked = sorted(search.trials, key=lambda t: (t.value is None, sign * (t.value or 0.0), t.number))
    kept = search.retention_metric
    edge = {trial.number for trial in front(search)}
    names = [name.rpartition(".")[2] for name in search.parameters]
    head = "".join(f" {name[:18]:>18}" for name in names)
    lines = [
        f"{search.arm}: {len(search.trials)} trials, by {search.metric} on the validation rows",
        f"  {'trial':>5} {search.metric:>10}" + (f" {'retention':>10}" if kept else "") + f"{head}   state",
    ]
    for trial in ranked:
        cells = "".join(f" {shown(trial.parameters.get(name)):>18}" for name in search.parameters)
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        retained = (
            "" if not kept else f" {'-' if trial.retention is None else f'{trial.retention:.4f}':>10}"
        )
        best = ", best" if trial.number == search.best else ""
        on_front = ", Pareto" if trial.number in edge else ""
        lines.append(f"  {trial.number:>5} {value:>10}{retained}{cells}   {trial.state}{best}{on_front}")
    return "\n".join(lines)
