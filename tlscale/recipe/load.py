"""From a recipe file and overrides to a frozen `Recipe`, or every problem at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tlscale import plugins
from tlscale.errors import Problem, RecipeError, TlscaleError, UsageError, unknown
from tlscale.recipe.base import Frozen
from tlscale.recipe.parse import apply_overrides, parse_yaml
from tlscale.recipe.paths import expand, file_problems, missing_file
from tlscale.recipe.problems import problems_of, shown
from tlscale.recipe.train import Train
from tlscale.recipe.types import Recipe

# Settings of train that no stage has for itself.
WHOLE_RUN = ("per_device_eval_batch_size", "logging_steps", "dataloader_num_workers", "report_to")


def load_recipe(
    path: Path, overrides: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
) -> Recipe:
    """The recipe at `path` with `overrides` (`key.sub=value`) laid over it.

    `environment` supplies `${NAME}` in paths.

    Raises:
        RecipeError: with every problem found, not only the first.
    """
    return check(read(path), overrides, source=str(path), environment=environment)


def read(path: Path) -> dict[str, Any]:
    """The mapping written in a recipe file.

    Raises:
        UsageError: no such file, not UTF-8, not YAML, or not a mapping.
    """
    said = missing_file(str(path))
    if said or not path.is_file():
        raise UsageError(f"{path}: {said or 'a folder; name the recipe file in it'}")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: a recipe is a mapping of keys to values, this is {shown(raw)}")
    return raw


def check(
    raw: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    source: str,
    environment: Mapping[str, str] | None = None,
) -> Recipe:
    """A parsed recipe as a `Recipe`; see `load_recipe`."""
    merged, problems = apply_overrides(dict(raw), list(overrides))
    expanded, more = expand(merged, environment or {})
    problems += more
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(expanded, default=str))
    except ValidationError as error:
        problems += problems_of(error, Recipe, expanded)
    problems += _strategy_problems(expanded)
    if isinstance(expanded.get("launch"), dict):
        problems += _launch_problems(expanded["launch"])
    for section in ("data", "model", "evaluate"):
        problems += file_problems(expanded.get(section), (section,))
    if problems or recipe is None:
        from_command_line = {argument.partition("=")[0] for argument in overrides}
        raise RecipeError(source, [_marked(p, from_command_line) for p in problems])
    return recipe


def _marked(problem: Problem, from_command_line: set[str]) -> Problem:
    if problem.path in from_command_line and "command line" not in problem.message:
        return Problem(problem.path, problem.given, f"{problem.message} (command line)")
    return problem


def _strategy_problems(raw: Mapping[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    if isinstance(raw.get("strategy"), dict):
        problems += options_problems(raw["strategy"], ("strategy",))
    stages = raw.get("stages")
    seen = {"base"}
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if not isinstance(stage, dict):
            continue
        at = ("stages", str(index))
        if isinstance(stage.get("strategy"), dict):
            problems += options_problems(stage["strategy"], (*at, "strategy"))
        problems += _train_problems(raw.get("train"), stage.get("train"), (*at, "train"))
        start = stage.get("starts_from")
        if isinstance(start, str) and start not in seen:
            problems.append(
                Problem(
                    ".".join((*at, "starts_from")), start, unknown(start, seen, "stage before this one")
                )
            )
        if stage.get("name") in seen:
            problems.append(
                Problem(".".join((*at, "name")), str(stage["name"]), "used before; name stages apart")
            )
        seen.add(str(stage.get("name")))
    return problems


def _train_problems(base: Any, changes: Any, at: tuple[str, ...]) -> list[Problem]:
    if not isinstance(changes, dict):
        return []
    merged = {**(base if isinstance(base, dict) else {}), **changes}
    problems = [
        Problem(".".join((*at, key)), shown(changes[key]), f"is of the whole run; set train.{key}")
        for key in WHOLE_RUN
        if key in changes
    ]
    try:
        Train.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        found = problems_of(error, Train, merged, at)
        problems += [p for p in found if p.path.split(".")[len(at)] in changes]
    return problems


def _launch_problems(raw: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with `launch`; its types are made only where there is one, so others start fast."""
    from tlscale.recipe.launch import Launch

    try:
        Launch.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        return problems_of(error, Launch, raw, ("launch",))
    return []


def options_problems(raw: Mapping[str, Any], at: tuple[str, ...]) -> list[Problem]:
    """What is wrong with one `strategy:` mapping, by the strategy's own options."""
    path = ".".join(at)
    kinds = plugins.names("tlscale.strategies")
    kind = raw.get("kind")
    if kind is None:
        return [Problem(f"{path}.kind", "", f"missing; allowed: {', '.join(kinds)}")]
    if kind not in kinds:
        return [Problem(f"{path}.kind", shown(kind), unknown(str(kind), kinds, "strategy"))]
    try:
        strategy_options(raw)
    except ValidationError as error:
        rest = _without_kind(raw)
        return problems_of(error, options_type(raw), rest, at)
    except UsageError as error:
        return [Problem(path, "", str(error))]
    except TlscaleError as error:
        return [Problem(f"{path}.kind", shown(kind), str(error))]
    return []


def _without_kind(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != "kind"}


def options_type(raw: Mapping[str, Any]) -> type[Frozen]:
    """The options model that a `strategy:` mapping is checked against."""
    strategy = plugins.load("tlscale.strategies", str(raw["kind"]))
    chosen: type[Frozen] = strategy.refine(raw) if strategy.refine else strategy.options
    return chosen


def strategy_options(raw: Mapping[str, Any]) -> Frozen:
    """The typed options of a `strategy:` mapping.

    Raises:
        ValidationError: an option is unknown or of the wrong type.
        UsageError: the strategy or a method of it has no such name.
    """
    return options_type(raw).model_validate_json(json.dumps(_without_kind(raw), default=str))
