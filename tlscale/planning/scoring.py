"""Plans for scoring a model that is no run of ours: who answers, and with what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlscale.errors import PlanError
from tlscale.planning.compile import compile_plan, world_of
from tlscale.planning.facts import DIMENSIONS, read_bare
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import Architecture, Facts, Plan
from tlscale.recipe.types import Recipe, Task

ADAPTER = "adapter_config.json"
# By the ending of the class that the model's config names; the first that fits.
BY_CLASS: tuple[tuple[str, str], ...] = (
    ("ForCausalLM", "lm"),
    ("LMHeadModel", "lm"),
    ("ForConditionalGeneration", "lm"),
    ("ForMaskedLM", "masked-lm"),
    ("ForImageClassification", "head"),
    ("ForSequenceClassification", "head"),
    ("CLIPModel", "clip"),
)
TASKS: dict[str, Task] = {
    "lm": "causal-lm",
    "masked-lm": "masked-lm",
    "embedding": "sentence-embedding",
    "class-mean": "sentence-embedding",
    "knn": "sentence-embedding",
    "nli": "sequence-classification",
    "head": "sequence-classification",
    "clip": "image-classification",
}
OTHERWISE: Task = "causal-lm"


def is_address(name: str) -> bool:
    """Whether a model is named by where it answers."""
    return name.startswith(("http://", "https://"))


def base_of_adapter(folder: Path) -> Mapping[str, Any] | None:
    """What a folder with a PEFT adapter and no model of its own says of its base; else `None`.

    Raises:
        PlanError: its configuration can't be read or names no base.
    """
    path = folder / ADAPTER
    if not path.is_file() or (folder / "config.json").is_file():
        return None
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: can't be read: {error}") from error
    if not said.get("base_model_name_or_path"):
        raise PlanError(f"{path}: names no base_model_name_or_path to put the adapter on")
    return said


def plan_scoring(recipe: Recipe, *, offline: bool) -> Plan:
    """The plan of a recipe that trains nothing, with `evaluate.predictor` settled.

    Raises:
        PlanError: the model can't be found, or parts of the recipe don't go together.
    """
    model, asked = recipe.model, recipe.evaluate.predictor
    if is_address(model.model_name_or_path):
        facts = Facts(
            model=model.model_name_or_path,
            commit=None,
            folder="",
            architecture=Architecture(model_type="endpoint", **dict.fromkeys(DIMENSIONS, 0)),
            tensors=(),
            labels=(),
            origin="config",
            head_is_new=False,
        )
        return _bare(_settled(recipe, asked or "endpoint", OTHERWISE), facts)
    facts, classes = read_bare(model, offline=offline)
    predictor = asked or _usual(classes, facts)
    task: Task = TASKS.get(predictor, OTHERWISE)
    if any(name.endswith("ForImageClassification") for name in classes):
        task = "image-classification"
    settled = _settled(recipe, predictor, task)
    if predictor in ("lm", "embedding", "class-mean", "knn"):
        return compile_plan(settled, offline=offline)
    return _bare(settled, facts)


def _usual(classes: tuple[str, ...], facts: Facts) -> str:
    """The predictor that fits a model's class; sentence embeddings where it has no head."""
    for name in classes:
        for ending, predictor in BY_CLASS:
            if name.endswith(ending):
                entails = any(label.casefold().startswith("entail") for label in facts.labels)
                return "nli" if predictor == "head" and entails else predictor
    return "embedding"


def _settled(recipe: Recipe, predictor: str, task: Task) -> Recipe:
    model = recipe.model.model_copy(update={"task": task})
    evaluate = recipe.evaluate.model_copy(update={"predictor": predictor})
    return recipe.model_copy(update={"model": model, "evaluate": evaluate})


def _bare(recipe: Recipe, facts: Facts) -> Plan:
    unsigned = Plan(
        fingerprint="",
        recipe=recipe,
        seed=recipe.seed,
        facts=facts,
        data=(),
        world=world_of(recipe),
        stages=(),
        max_length=recipe.data.max_length or facts.architecture.max_length or 512,
        notes=(),
        versions={},
    )
    return unsigned.model_copy(update={"fingerprint": fingerprint(unsigned)})
