"""One recipe, one run per seed, each with its own plan and directory, and control arms beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import UsageError, WriteError
from tlscale.planning.compile import compile_plan, read_plan, versions
from tlscale.planning.objective_checks import ON_TARGET, STAGE_ON_TARGET
from tlscale.planning.types import Plan
from tlscale.recipe.load import check
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text

# Control arms that are trained. The head is small and its features are computed once, so it gets settings
# that suit it; from scratch gets the recipe's own, so that only the pretraining differs.
TRAINED_ARMS: dict[str, dict[str, Any]] = {
    "features": {
        "strategy": {"kind": "features"},
        "train": {
            "learning_rate": 3e-3,
            "num_train_epochs": 20.0,
            "train_batch_size": 64,
            "weight_decay": 1.0,
        },
    },
    "scratch": {"strategy": {"kind": "full"}, "model": {"init": "scratch"}},
    "target_only": {},
    "source_only": {},
}
# arms that keep the recipe's own strategy
LIKE_THE_RECIPE = ("target_only", "source_only")


@dataclass(frozen=True)
class RunSpec:
    """A plan and where it is to run; `arms` are the control runs inside its directory."""

    plan: Plan
    layout: RunLayout
    arms: tuple[RunSpec, ...] = ()


def runs_of(recipe: Recipe, *, offline: bool) -> tuple[RunSpec, ...]:
    """The runs that a recipe asks for; nothing is written."""
    root = Path(recipe.output_dir or f"runs/{recipe.name}")
    if not recipe.seeds:
        return (_spec(recipe, recipe.seed, root, offline=offline),)
    return tuple(_spec(recipe, seed, root / f"seed-{seed}", offline=offline) for seed in recipe.seeds)


def _spec(recipe: Recipe, seed: int, root: Path, *, offline: bool) -> RunSpec:
    layout = RunLayout(root)
    arms = tuple(
        RunSpec(
            compile_plan(control(recipe, name), seed=seed, offline=offline), RunLayout(layout.arm(name))
        )
        for name in recipe.evaluate.against
        if name in TRAINED_ARMS
    )
    return RunSpec(compile_plan(recipe, seed=seed, offline=offline), layout, arms)


def control(recipe: Recipe, name: str) -> Recipe:
    """The recipe of a trained control arm: the same rows and items, another strategy.

    Of several stages, target_only has the last alone; source_only has no term on data.unlabelled, and no
    stage that only adapts to it.

    Raises:
        RecipeError: evaluate.arm_settings has something that this arm can't have.
    """
    changes: dict[str, Any] = TRAINED_ARMS[name]
    settings = next((s for arm, s in recipe.evaluate.arm_settings.items() if arm == name), {})
    raw = recipe.model_dump(mode="json", exclude_unset=True)
    for key in ("sweep", *(() if name in LIKE_THE_RECIPE else ("strategy", "stages"))):
        raw.pop(key, None)
    for section in ("model", "train"):
        raw[section] = {**raw.get(section, {}), **changes.get(section, {})}
    if "train" in changes:
        raw["train"].pop("max_steps", None)
    if name == "target_only":
        raw["stages"] = [{**raw["stages"][-1], "starts_from": None, "carry": "auto"}]
    elif name == "source_only" and "stages" in raw:
        raw["stages"] = [s for s in raw["stages"] if s["strategy"]["kind"] not in STAGE_ON_TARGET]
    elif name != "source_only":
        raw["strategy"] = changes["strategy"]
        raw["model"]["quantization"] = "none"
    if name in ("source_only", "features"):
        for part in (raw, *raw.get("stages", ())):
            _without_target(part.get("train", {}))
    raw["name"] = f"{recipe.name}-{name}"
    raw["evaluate"] = {**raw.get("evaluate", {}), "against": [], "against_runs": [], "arm_settings": {}}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return check(raw, overrides, source=f"evaluate.arm_settings.{name}")


def _without_target(train: dict[str, Any]) -> None:
    """Leaves out the terms that look at data.unlabelled."""
    if train.get("objective"):
        train["objective"] = {k: v for k, v in train["objective"].items() if k not in ON_TARGET}


def prepare(spec: RunSpec, recipe_file: Path, *, changed: bool = False) -> None:
    """Makes the run directories of a run and its arms, or accepts ones that hold the same plans.

    With `changed` it also accepts a plan whose recipe differs in how the run is carried out, and puts the
    new one in its place; the old one is kept beside it.

    Raises:
        UsageError: a directory holds something else; nothing in it is touched.
    """
    layout = spec.layout
    if layout.plan.is_file():
        before = read_plan(layout.plan)
        if before.fingerprint != spec.plan.fingerprint:
            _accept(before, spec, changed=changed)
            write_text(layout.earlier_plan(before.fingerprint), layout.plan.read_text(encoding="utf-8"))
            write_text(layout.recipe, recipe_file.read_text(encoding="utf-8"))
            write_text(layout.plan, _with_versions(spec.plan))
    elif layout.root.exists() and not layout.root.is_dir():
        raise UsageError(f"{layout.root} is a file; give output_dir=ANOTHER")
    elif layout.root.exists() and any(layout.root.iterdir()):
        raise UsageError(f"{layout.root} is not empty and no run directory; give output_dir=ANOTHER")
    else:
        _write(spec, recipe_file)
    for arm in spec.arms:
        prepare(arm, recipe_file, changed=changed)


def _accept(before: Plan, spec: RunSpec, *, changed: bool) -> None:
    """Refuses a plan that the run in its directory can't go on with, or was not told to."""
    from tlscale.planning.changes import changes, resume_key

    root, found = spec.layout.root, changes(before, spec.plan)
    listed = "".join(f"\n  {change}" for change in found)
    head = (
        f"{root} holds a run of another plan ({before.fingerprint}, now {spec.plan.fingerprint})"
        f"{f', of a recipe that differs in{listed}' if found else ''}\n"
    )
    other = "give output_dir=ANOTHER, or remove the folder if it is no longer needed"
    fixed = [change.path for change in found if not change.allowed]
    if fixed:
        raise UsageError(f"{head}A run can't go on with another {', '.join(fixed)}; {other}")
    if resume_key(before) != resume_key(spec.plan):
        rows = [[planned.batch.total for planned in plan.stages] for plan in (before, spec.plan)]
        if rows[0] != rows[1]:
            raise UsageError(
                f"{head}A run can't go on with other rows per step ({rows[0]}, now {rows[1]}); set "
                f"train.train_batch_size={rows[0][0]}, or {other}"
            )
        raise UsageError(f"{head}The data or the model is another than it was; {other}")
    if not changed:
        raise UsageError(f"{head}Give --resume-changed to go on with these changes; or {other}")


def _write(spec: RunSpec, recipe_file: Path) -> None:
    layout = spec.layout
    made = [folder for folder in (layout.root, *layout.root.parents) if not folder.exists()]
    try:
        write_text(layout.recipe, recipe_file.read_text(encoding="utf-8"))
        write_text(layout.plan, _with_versions(spec.plan))
    except WriteError as error:
        if layout.recipe.is_file():
            layout.recipe.unlink()
        for folder in made:
            if folder.is_dir():
                folder.rmdir()
        raise UsageError(f"{error}; give output_dir=ANOTHER") from error


def _with_versions(plan: Plan) -> str:
    return plan.model_copy(update={"versions": versions()}).model_dump_json(indent=1) + "\n"
