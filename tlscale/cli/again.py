"""`tlscale reproduce` and `tlscale runs`: what was done before, again or at a glance."""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tlscale.cli.execute import train
from tlscale.cli.inspect import must_fit
from tlscale.errors import ExitCode, RegressionError, UsageError
from tlscale.outer.repeat import RunSpec, prepare, runs_of
from tlscale.runs.record import write_json
from tlscale.runs.result import existing

if TYPE_CHECKING:
    from tlscale.publish.reproduce import Original


def reproduce(arguments: argparse.Namespace) -> int:
    """Runs what is published, or a run of this machine, again, and says how far the scores are apart."""
    from tlscale.publish.reproduce import compared, described

    original, spec = _again(arguments)
    for single in (*spec.arms, spec):
        train(single, quiet=arguments.json)
    output, margin = spec.layout.root, spec.plan.recipe.report.margin
    rows = compared(original, spec.layout)
    worst = max((abs(row.difference) for row in rows if row.suite == "target"), default=None)
    if worst is None:
        raise UsageError(f"{original.name}: has no scores to compare with")
    if arguments.json:
        told = [{**asdict(row), "difference": row.difference} for row in rows]
        print(json.dumps({"of": original.name, "run": str(output), "scores": told, "margin": margin}))
    else:
        print(f"\n{described(original.name, output, rows)}")
    if worst > margin:
        raise RegressionError(
            f"not reproduced: a target score differs by {worst:.3g}, more than report.margin={margin:g}; "
            "other versions or another kind of device can do that"
        )
    if not arguments.json:
        print(f"\nreproduced: no target score differs by more than {worst:.1e} (report.margin={margin:g})")
    return int(ExitCode.OK)


def _again(arguments: argparse.Namespace) -> tuple[Original, RunSpec]:
    """What is to be done again, and a prepared run directory for it."""
    from tlscale.publish.fetch import fetch, is_address
    from tlscale.publish.hub import Hub
    from tlscale.publish.reproduce import of_publication, of_run, other_versions, recipe_again

    with tempfile.TemporaryDirectory(prefix="tlscale-") as made:
        folder = Path(made) / "publication"
        if is_address(arguments.what):
            original = of_publication(folder, fetch(arguments.what, Hub(), folder))
        else:
            original = of_run(existing(Path(arguments.what)))
        output = Path(arguments.output or f"runs/{original.raw['name']}-again")
        recipe = recipe_again(original, arguments.overrides, output)
        file = Path(made) / "recipe.yaml"
        write_json(file, json.loads(recipe.model_dump_json(exclude_defaults=True)))
        (spec,) = runs_of(recipe, offline=arguments.offline)
        must_fit(spec.plan)
        for version in other_versions(original):
            if not arguments.json:
                print(f"note      {version}")
        prepare(spec, file)
    return original, spec


def runs(arguments: argparse.Namespace) -> int:
    """Lists the runs in folders, as a table or as JSON."""
    from tlscale.publish.registry import chosen, find, table

    found = find([Path(folder) for folder in arguments.folders or ["runs"]])
    kept = chosen(found, arguments.where)
    if arguments.json:
        print(json.dumps([asdict(one) for one in kept]))
    else:
        print(table(kept))
        if len(kept) > 1:
            pair = " ".join(shlex.quote(one.path) for one in kept[:2])
            print(f"\n{len(kept)} of {len(found)} runs. Next: tlscale compare {pair}")
    return int(ExitCode.OK)
