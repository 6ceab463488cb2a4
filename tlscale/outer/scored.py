"""Evaluation tasks on a run, model, adapter or endpoint: what is asked, and where its scores go."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import UsageError
from tlscale.launching.local import Command, worker_command
from tlscale.planning.compile import read_plan, versions
from tlscale.planning.scoring import base_of_adapter, is_address, plan_scoring
from tlscale.planning.types import Plan
from tlscale.recipe.evaluate import Evaluate
from tlscale.recipe.load import check
from tlscale.recipe.paths import missing_file
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text
from tlscale.runs.result import existing


@dataclass(frozen=True)
class Asked:
    """Tasks to be scored, as a user asked for them.

    Attributes:
        settings: What a recipe's `evaluate` would say.
        overrides: Further settings, `KEY=VALUE`; of a run, those of `evaluate` alone.
        source: What errors call the place where they were given.
        output: Folder of the scores of a model that is no run.
        environment: For `${NAME}` in paths.
        offline: Read the Hub's cache only.
    """

    settings: Mapping[str, Any]
    overrides: Sequence[str]
    source: str
    output: str | None
    environment: Mapping[str, str]
    offline: bool = False


def ready(model: str, asked: Asked) -> tuple[RunLayout, Command]:
    """Where the scores of `model` go, and the command that makes them.

    Raises:
        UsageError: there is no such model, or the folder holds something else.
        RecipeError: a setting can't be meant.
        PlanError: the model can't be planned with.
    """
    if RunLayout(Path(model)).plan.is_file():
        if asked.output is not None:
            raise UsageError("--output: a run's scores go into the run")
        layout = existing(Path(model))
        plan = read_plan(layout.plan)
        settled = _of_run(plan, asked)
    else:
        recipe = _recipe(model, asked)
        layout, plan = _folder(recipe, asked)
        settled = recipe.evaluate.model_copy(update={"predictor": plan.recipe.evaluate.predictor})
    request = json.dumps({"evaluate": settled.model_dump(mode="json")})
    return layout, worker_command(
        layout.root, "tasks", "--request", request, processes=plan.world.processes
    )


def _of_run(plan: Plan, asked: Asked) -> Evaluate:
    """The run's own settings with those that are asked for over them."""
    foreign = [one for one in asked.overrides if not one.startswith("evaluate.")]
    if foreign:
        raise UsageError(
            f"{foreign[0]}: of a run, only evaluate.KEY=VALUE can be set; its plan says the rest"
        )
    own = plan.recipe.model_dump(mode="json", exclude_unset=True)
    raw = {**own, "evaluate": {**own.get("evaluate", {}), **asked.settings}}
    return check(raw, asked.overrides, source=asked.source, environment=asked.environment).evaluate


def _recipe(given: str, asked: Asked) -> Recipe:
    """A recipe that trains nothing, of a model, adapter or address.

    Raises:
        UsageError: there is no such folder, or a setting can't be meant.
    """
    settings = dict(asked.settings)
    model: dict[str, Any] = {"model_name_or_path": given, "task": "causal-lm"}
    folder = Path(given).expanduser()
    if not is_address(given) and not folder.exists() and given.count("/") != 1 and ":" not in given:
        raise UsageError(f"{given}: {missing_file(given)}")
    adapter = base_of_adapter(folder) if folder.is_dir() else None
    if adapter is not None:
        model |= _under(folder, adapter)
        settings["adapter"] = given
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", re.split("[/:]", given.rstrip("/"))[-1])
    raw = {
        "version": 1,
        "name": name.strip("-._") or "model",
        "model": model,
        "strategy": {"kind": "none"},
        "evaluate": settings,
    }
    return check(raw, asked.overrides, source=asked.source, environment=asked.environment)


def _under(folder: Path, adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The base of an adapter, quantized as the adapter's own manifest says."""
    found = {"model_name_or_path": str(adapter["base_model_name_or_path"])}
    if adapter.get("revision") and not Path(found["model_name_or_path"]).exists():
        found["revision"] = str(adapter["revision"])
    manifest = folder / "manifest.json"
    if manifest.is_file():
        found["quantization"] = json.loads(manifest.read_text(encoding="utf-8")).get("quantization", "none")
    return found


def _folder(recipe: Recipe, asked: Asked) -> tuple[RunLayout, Plan]:
    """The directory that an evaluation's scores go into, which other tasks of the same model may share.

    Raises:
        UsageError: it holds something else.
    """
    layout = RunLayout(Path(asked.output or recipe.output_dir or f"evals/{recipe.name}"))
    # What is asked may differ from time to time; the plan says only who is asked.
    kept = {name: getattr(recipe.evaluate, name) for name in ("adapter", "predictor", "predictor_options")}
    bare = recipe.model_copy(update={"evaluate": Evaluate(**kept)})
    plan = plan_scoring(bare, offline=asked.offline)
    if layout.plan.is_file():
        before = read_plan(layout.plan)
        if before.fingerprint != plan.fingerprint:
            raise UsageError(f"{layout.root} holds scores of another model; give --output ANOTHER")
        return layout, plan
    if layout.root.exists() and (not layout.root.is_dir() or any(layout.root.iterdir())):
        raise UsageError(f"{layout.root} is not empty, and holds no scores; give --output ANOTHER")
    written = plan.recipe.model_dump(mode="json", exclude_defaults=True)
    write_text(layout.recipe, json.dumps({"version": 1, **written}, indent=1) + "\n")
    write_text(
        layout.plan, plan.model_copy(update={"versions": versions()}).model_dump_json(indent=1) + "\n"
    )
    return layout, plan
