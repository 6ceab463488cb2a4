"""`tlscale plan`: what a run would do, without torch."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tlscale.errors import DoesNotFitError, ExitCode
from tlscale.planning.compile import compile_plan, memory_shortfall
from tlscale.planning.render import table
from tlscale.planning.types import Plan
from tlscale.recipe.load import load_recipe
from tlscale.recipe.types import Recipe


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe named on the command line with its overrides."""
    return load_recipe(Path(arguments.recipe), arguments.overrides, environment=os.environ)


def plan(arguments: argparse.Namespace) -> int:
    """Shows the plan; exit code 3 when it doesn't fit."""
    made = compile_plan(recipe_of(arguments), offline=arguments.offline)
    if made.recipe.publish is not None:
        from tlscale.cli.publish import before_training

        before_training(made, offline=arguments.offline)
    if arguments.json:
        print(made.model_dump_json(indent=2))
    else:
        print(table(made))
        if not memory_shortfall(made):
            print(f"\n  It fits. Next: tlscale run {arguments.recipe}")
    must_fit(made)
    return int(ExitCode.OK)


def must_fit(made: Plan) -> None:
    """Refuses a plan that needs more memory than a device has.

    Raises:
        DoesNotFitError: with the account's largest items and what would make it smaller.
    """
    short = memory_shortfall(made)
    if not short:
        return
    sys.stdout.flush()
    hungriest = max(made.stages, key=lambda p: sum(i.bytes for i in p.memory))
    largest = sorted(hungriest.memory, key=lambda item: -item.bytes)[:3]
    items = ", ".join(f"{item.name} {item.bytes / 1e9:.1f} GB" for item in largest)
    raise DoesNotFitError(
        f"does not fit: stage {hungriest.stage.name} is estimated {short / 1e9:.1f} GB over the "
        f"{(made.world.memory_per_device or 0) / 1e9:.1f} GB of a device; largest: {items}. "
        f"{_smaller(made)}; or hardware.memory_per_device=GB if it has more"
    )


def _smaller(made: Plan) -> str:
    from tlscale.planning.remedy import smallest_change  # plans again, which only a plan that fails needs

    change = smallest_change(made, happened=False)
    if change:
        return f"Smallest change that fits: {change}"
    return (
        "No single change is enough. Smaller: train.gradient_checkpointing=true, "
        "train.per_device_train_batch_size=1, data.max_length, "
        "model.quantization=nf4 with strategy kind peft"
    )
