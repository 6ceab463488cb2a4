"""One recipe, one run per seed, each with its own plan and directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlscale.errors import UsageError
from tlscale.plan.compile import compile_plan, read_plan
from tlscale.plan.types import Plan
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text


@dataclass(frozen=True)
class RunSpec:
    """A plan and where it is to run."""

    plan: Plan
    layout: RunLayout


def runs_of(recipe: Recipe, *, offline: bool) -> tuple[RunSpec, ...]:
    """The runs that a recipe asks for; nothing is written."""
    root = Path(recipe.output_dir or f"runs/{recipe.name}")
    if not recipe.seeds:
        return (RunSpec(compile_plan(recipe, offline=offline), RunLayout(root)),)
    return tuple(
        RunSpec(compile_plan(recipe, seed=seed, offline=offline), RunLayout(root / f"seed-{seed}"))
        for seed in recipe.seeds
    )


def prepare(spec: RunSpec, recipe_file: Path) -> None:
    """Makes the run directory, or accepts one that holds the same plan.

    Raises:
        UsageError: the directory holds something else; nothing in it is touched.
    """
    layout = spec.layout
    if layout.plan.is_file():
        before = read_plan(layout.plan)
        if before.fingerprint != spec.plan.fingerprint:
            raise UsageError(
                f"{layout.root} holds a run of another plan ({before.fingerprint}, now "
                f"{spec.plan.fingerprint}); "
                "give output_dir=ANOTHER, or remove the folder if it is no longer needed"
            )
        return
    if layout.root.exists() and any(layout.root.iterdir()):
        raise UsageError(f"{layout.root} is not empty and no run directory; give output_dir=ANOTHER")
    write_text(layout.recipe, recipe_file.read_text(encoding="utf-8"))
    write_text(layout.plan, spec.plan.model_dump_json(indent=1) + "\n")
