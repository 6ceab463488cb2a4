"""A worker started on a recipe: its plan is made where it runs, for the processes that were launched.

The first process writes the run directory; the others wait for it. What the recipe leaves open follows the
launcher: the number of processes and machines, and the sharding of Accelerate's config file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tlscale.engine import runtime
from tlscale.engine.launched import Launched
from tlscale.errors import UsageError
from tlscale.planning.compile import compile_plan, memory_shortfall, read_plan, versions
from tlscale.planning.types import Plan
from tlscale.recipe.hardware import Hardware
from tlscale.recipe.load import load_recipe
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text

SUFFIXES = (".yaml", ".yml", ".json")
SECONDS = 120.0
PAUSE = 0.2


def run_directory(given: Path, overrides: Sequence[str]) -> RunLayout:
    """The run directory to work in: `given` itself, or that of the recipe in `given`.

    Raises:
        UsageError: the recipe or its run directory is not usable, or the first process wrote nothing.
    """
    if given.suffix not in SUFFIXES or given.is_dir():
        if overrides:
            raise UsageError(
                f"{given}: {' '.join(overrides)}: only a recipe can be overridden, by key=value"
            )
        return RunLayout(given)
    asked = runtime.asked_by_launcher()
    recipe = fitted(load_recipe(given, overrides, environment=runtime.environment()), asked)
    if recipe.seeds:
        raise UsageError(
            f"{given}: seeds: a worker makes one run; give seed=NUMBER seeds=[], or use tlscale run"
        )
    layout = RunLayout(Path(recipe.output_dir or f"runs/{recipe.name}"))
    started = time.time()
    if runtime.leads():
        _write(compile_plan(recipe), layout, given)
    else:
        _wait(layout, recipe, started)
    return layout


def fitted(recipe: Recipe, asked: Launched) -> Recipe:
    """`recipe` with what it leaves open in `hardware` taken from the launcher."""
    written = recipe.hardware.model_fields_set
    found: dict[str, object] = {}
    for name, value in (("processes", asked.processes), ("machines", asked.machines)):
        if name not in written:
            found[name] = value
    if asked.sharding is not None:
        if recipe.hardware.sharding == "auto":
            found["sharding"] = asked.sharding
        if "offload" not in written:
            found["offload"] = asked.offload
    hardware = Hardware.model_validate({**recipe.hardware.model_dump(exclude_unset=True), **found})
    return recipe.model_copy(update={"hardware": hardware})


def _write(plan: Plan, layout: RunLayout, recipe_file: Path) -> None:
    short = memory_shortfall(plan)
    if short:
        raise UsageError(f"{recipe_file}: does not fit: {short / 1e9:.1f} GB too much; see tlscale plan")
    if layout.plan.is_file():
        before = read_plan(layout.plan)
        if before.fingerprint != plan.fingerprint:
            raise UsageError(
                f"{layout.root} holds a run of another plan ({before.fingerprint}, now "
                f"{plan.fingerprint}); give output_dir=ANOTHER, or remove the folder"
            )
        layout.plan.touch()
        return
    if layout.root.exists() and (not layout.root.is_dir() or any(layout.root.iterdir())):
        raise UsageError(f"{layout.root} is not empty and no run directory; give output_dir=ANOTHER")
    write_text(layout.recipe, recipe_file.read_text(encoding="utf-8"))
    made = plan.model_copy(update={"versions": versions()})
    write_text(layout.plan, made.model_dump_json(indent=1) + "\n")


def _wait(layout: RunLayout, recipe: Recipe, started: float) -> None:
    """Until the first process has written or accepted the plan of this recipe."""
    while time.time() - started < SECONDS:
        if layout.plan.is_file() and read_plan(layout.plan).recipe == recipe:
            return
        time.sleep(PAUSE)
    raise UsageError(
        f"{layout.root}: the first process has written no plan of this recipe within {SECONDS:.0f} s; "
        "the run directory must be on a disk that all machines share"
    )
