"""`tlscale probe`: which base, layer and pooling suit a recipe's task, before anything is trained."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tlscale.cli.inspect import recipe_of
from tlscale.errors import UsageError, unknown
from tlscale.launching.local import launch, worker_command
from tlscale.planning.blocks import numbered_blocks
from tlscale.planning.compile import compile_plan
from tlscale.planning.facts import read_facts
from tlscale.planning.types import Plan
from tlscale.recipe.candidates import candidate
from tlscale.recipe.types import CLASSIFICATION, Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text

POOLINGS = ("auto", "mean", "cls", "last")
FEWEST_ROWS = 2


def probe(arguments: argparse.Namespace) -> int:
    """Ranks frozen feature sources; the table goes to the terminal and to probe.json."""
    recipe = recipe_of(arguments)
    if arguments.gradients:
        return _gradients(arguments, recipe)
    reads = recipe.model.task == "causal-lm"
    if not reads and recipe.model.task not in CLASSIFICATION:
        allowed = ", ".join((*CLASSIFICATION, "causal-lm"))
        raise UsageError(
            f"model.task: {recipe.model.task}: probes need labels or texts; allowed: {allowed}"
        )
    if recipe.data.train is None:
        raise UsageError("data.train: missing; probes look at training rows")
    if reads and (arguments.layers or arguments.poolings != "auto"):
        raise UsageError("--layers, --poolings: they rank features for labels, and a causal-lm has none")
    if arguments.alignment and recipe.model.task != "image-classification":
        raise UsageError(f"--alignment: how pictures are prepared, and {recipe.model.task} has none")
    models, poolings = _listed(arguments.models or ""), _listed(arguments.poolings)
    for pooling in poolings:
        if pooling not in POOLINGS:
            raise UsageError(f"--poolings: {pooling}: {unknown(pooling, POOLINGS, 'pooling')}")
    if arguments.rows < FEWEST_ROWS:
        raise UsageError(f"--rows: {arguments.rows}; at least {FEWEST_ROWS} rows are needed")
    plan = compile_plan(recipe, offline=arguments.offline)
    for name in models:
        read_facts(candidate(recipe.model, name), labels=plan.facts.labels, offline=arguments.offline)
    layout = _begun(arguments, recipe, plan)
    asked = {
        "models": models, "layers": arguments.layers, "poolings": poolings, "rows": arguments.rows,
        "alignment": arguments.alignment, "offline": arguments.offline,
    }  # fmt: skip
    extra = ("--request", json.dumps(asked), *(("--json",) if arguments.json else ()))
    code = launch(worker_command(layout.root, "read" if reads else "probe", *extra), quiet=False)
    if not code and not arguments.json:
        print(f"Kept in {layout.probe}")
    return code


def _gradients(arguments: argparse.Namespace, recipe: Recipe) -> int:
    """Ranks the base's blocks by the gradients of the recipe's task."""
    given = [f"--{name}" for name in ("models", "layers", "alignment") if getattr(arguments, name)]
    if given:
        raise UsageError(
            f"{given[0]}: not with --gradients, which looks at the blocks of the recipe's own base"
        )
    if recipe.model.task == "sentence-embedding":
        raise UsageError(
            "model.task: sentence-embedding: its loss is of pairs, and --gradients looks at rows"
        )
    if recipe.data.train is None:
        raise UsageError("data.train: missing; probes look at training rows")
    plan = compile_plan(recipe, offline=arguments.offline)
    numbered_blocks(plan.facts)
    layout = _begun(arguments, recipe, plan)
    extra = ("--request", str(arguments.rows), *(("--json",) if arguments.json else ()))
    code = launch(worker_command(layout.root, "gradients", *extra), quiet=False)
    if not code and not arguments.json:
        print(f"Kept in {layout.gradients}")
    return code


def _begun(arguments: argparse.Namespace, recipe: Recipe, plan: Plan) -> RunLayout:
    layout = _folder(recipe)
    write_text(layout.recipe, Path(arguments.recipe).read_text(encoding="utf-8"))
    write_text(layout.plan, plan.model_dump_json(indent=1) + "\n")
    return layout


def _folder(recipe: Recipe) -> RunLayout:
    """The folder of a recipe's probes, beside the one of its run.

    Raises:
        UsageError: it holds something else.
    """
    layout = RunLayout(Path(f"{recipe.output_dir or f'runs/{recipe.name}'}-probe"))
    own = {layout.recipe, layout.plan, layout.probe, layout.gradients}
    others = sorted(set(layout.root.iterdir()) - own) if layout.root.is_dir() else []
    if others or (layout.root.exists() and not layout.root.is_dir()):
        raise UsageError(f"{layout.root} holds something else than probes; give output_dir=ANOTHER")
    return layout


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
