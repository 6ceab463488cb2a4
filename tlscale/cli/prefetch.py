"""`tlscale prefetch`: fills the Hub's cache on a login node, so that jobs run without a network."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from tlscale.cli.inspect import recipe_of
from tlscale.errors import ExitCode
from tlscale.planning.compile import compile_plan
from tlscale.planning.facts import on_hub
from tlscale.planning.hub import fetch_hub
from tlscale.recipe.types import Recipe, Source
from tlscale.sources.hub import from_hub


def prefetch(arguments: argparse.Namespace) -> int:
    """Downloads what a recipe takes from the Hub, then plans it offline as a proof."""
    recipe = recipe_of(arguments)
    fetched = dict(_fetched(recipe))
    made = compile_plan(recipe, offline=True)
    if arguments.json:
        print(json.dumps({"fetched": fetched, "fingerprint": made.fingerprint}))
        return int(ExitCode.OK)
    for name, where in fetched.items():
        print(f"fetched   {name}   {where}")
    if not fetched:
        print("nothing of this recipe comes from the Hub")
    print(f"It can be planned offline. Next: tlscale submit {arguments.recipe}")
    return int(ExitCode.OK)


def _fetched(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What comes from the Hub, and where it lies now."""
    model = recipe.model
    if on_hub(model.model_name_or_path):
        folder = fetch_hub(model.model_name_or_path, model.revision, code=model.trust_remote_code)
        yield model.model_name_or_path, str(folder)
    for source in _sources(recipe):
        if source.hub is not None:
            table = from_hub(source)
            yield source.hub, f"{table.count:,} rows of {source.split}, in the cache of datasets"


def _sources(recipe: Recipe) -> Iterator[Source]:
    data = recipe.data
    given = (
        *(data.train, data.validation, data.test, data.retention, data.replay, data.unlabelled),
        *(stage.data for stage in recipe.stages),
    )
    yield from (part for one in given if one is not None for part in one.parts)
