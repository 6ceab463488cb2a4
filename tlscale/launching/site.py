"""A cluster's own settings, kept once: account, partition, modules, container, network variables.

The profile is a YAML file with the keys of `launch.slurm`. A recipe's settings win over it, and the command
line's over both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tlscale.errors import RecipeError, UsageError
from tlscale.recipe.launch import Slurm
from tlscale.recipe.load import read
from tlscale.recipe.problems import problems_of
from tlscale.recipe.types import Recipe

VARIABLE = "TLSCALE_SITE"


def site_file() -> Path | None:
    """The profile: what TLSCALE_SITE names, or ~/.config/tlscale/site.yaml where there is one.

    Raises:
        UsageError: TLSCALE_SITE names a file that is not there.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UsageError(f"{VARIABLE}: {named}: no such file; name a site profile, or unset it")
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    usual = Path(config) / "tlscale" / "site.yaml"
    return usual if usual.is_file() else None


def settings(recipe: Recipe, given: Mapping[str, Any]) -> Slurm:
    """The settings of a job: the site's, under the recipe's, under those `given` on the command line.

    Variables are joined by name; everything else is replaced.

    Raises:
        RecipeError: with every problem of the profile, or of what was given.
    """
    file = site_file()
    site = read(file) if file is not None else {}
    _checked(site, str(file))
    own = (recipe.launch or {}).get("slurm")
    mine: Mapping[str, Any] = own if isinstance(own, dict) else {}
    _checked(given, "the command line")
    variables = {**site.get("environment", {}), **mine.get("environment", {})}
    merged = {**site, **mine, **given}
    if variables:
        merged["environment"] = variables
    return _checked(merged, "the settings of the site and the recipe together")


def _checked(raw: Mapping[str, Any], source: str) -> Slurm:
    try:
        return Slurm.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise RecipeError(source, problems_of(error, Slurm, raw)) from error
