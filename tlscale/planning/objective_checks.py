"""Objective terms that can't be meant with a model, an adapter or the data: what, why, and what instead."""

from __future__ import annotations

from pydantic import JsonValue

from tlscale.planning.types import Facts, Stage, World
from tlscale.recipe.types import CLASSIFICATION, Recipe

LOW_RANK = "LORA"
WHOLE = ("single", "ddp")
STAYING = ("l2_sp", "ewc")
ADVERSARIAL = ("dann", "cdan", "adda")
ALIGNING = ("coral", "mmd", *ADVERSARIAL)
ON_TARGET = (*ALIGNING, "mcc")
# of these, a whole stage looks at data.unlabelled: the strategy has the name of its term
STAGE_ON_TARGET = ("adda",)


def objective_problems(
    recipe: Recipe, facts: Facts, stage: Stage, trained: frozenset[str], world: World
) -> list[str]:
    """A sentence for each term of `stage` that can't be meant."""
    names = {term.name: term.options for term in stage.objective}
    found = [
        f"train.objective.{name}: needs rows; give data.{role}"
        for name, role in _needed(names)
        if getattr(recipe.data, role) is None
    ]
    pooled, task = stage.head.kind == "pooled", recipe.model.task
    for name, options in names.items():
        key = f"train.objective.{name}"
        if name in ON_TARGET and task not in CLASSIFICATION:
            found.append(f"{key}: is about classes, and {task} has none; use replay or kl_to_base")
        elif name in ALIGNING and not pooled:
            found.append(
                f"{key}: aligns the features under a head of our own; set head: pooled in the strategy, "
                "or use mcc"
            )
        elif name in ALIGNING and not stage.head.hidden and stage.adapter is None and _frozen(trained):
            found.append(
                f"{key}: nothing before the last layer trains, so features can't move; set "
                "strategy.hidden, or train the backbone"
            )
        if name == "kl_to_base" and (pooled or facts.head_is_new):
            found.append(
                f"{key}: the head is new, so the base has no answers to stay near to; use l2_sp or replay"
            )
        if name in STAYING and stage.adapter is not None and not _adds_products(stage):
            found.append(
                f"{key}: {_method(stage)} adds no change of weights; use method: lora, or strategy: full"
            )
        if name == "o_lora":
            found += _orthogonal(key, options, stage)
        if name in STAYING and recipe.model.init == "scratch":
            found.append(f"{key}: keeps weights where they began, and these begin random; leave it out")
        found += _choices(name, key, recipe) + _pet(name, recipe)
        found += _adversarial(name, key, stage, world)
        whole = name in (*STAYING, "o_lora", "adda") or (name == "kl_to_base" and stage.adapter is None)
        if whole and world.backend not in WHOLE:
            found.append(
                f"{key}: needs whole weights on every process, and {world.backend} shards them; use "
                "hardware.sharding: none, or replay"
            )
        if name in ("rdrop", "kl_to_base") and task == "sentence-embedding":
            found.append(f"{key}: compares answers, and an encoder gives none; use l2_sp")
    if "ewc" in names and recipe.model.quantization != "none":
        found.append("train.objective.ewc: quantized weights have no gradients; use l2_sp or kl_to_base")
    return found


def _choices(name: str, key: str, recipe: Recipe) -> list[str]:
    if name != "choices":
        return []
    if recipe.model.task != "causal-lm":
        own = "use pet" if recipe.model.task == "masked-lm" else "a classifier's own loss does this"
        return [f"{key}: is about answers that a language model writes; {own}"]
    if recipe.data.packing or recipe.data.loss_on == "all":
        apart = "set data.packing to false and data.loss_on to completion"
        return [f"{key}: needs prompts and completions told apart; {apart}"]
    return []


def _pet(name: str, recipe: Recipe) -> list[str]:
    if name == "pet" and recipe.model.task != "masked-lm":
        other = "use choices" if recipe.model.task == "causal-lm" else "a classifier's own loss does this"
        return [f"train.objective.pet: is about words in a mask's place, and there is no mask; {other}"]
    if name == "pet_mlm" and recipe.data.unlabelled is None:
        return ["train.objective.pet.mlm: needs texts without labels; give data.unlabelled, or set it to 0"]
    return []


def _orthogonal(key: str, options: dict[str, JsonValue], stage: Stage) -> list[str]:
    if stage.adapter is None or stage.adapter.peft_type != LOW_RANK:
        return [f"{key}: is about LoRA's A, and this stage has none; use method: lora, or l2_sp"]
    if options["adapters"] or stage.carry == "merge":
        return []
    said = (
        "there is no earlier adapter to stay clear of; give adapters: [FOLDER], or carry: merge in a stage"
    )
    return [f"{key}: {said} that follows another"]


def _adversarial(name: str, key: str, stage: Stage, world: World) -> list[str]:
    found = []
    if name in ADVERSARIAL and world.dtype == "float16":
        found.append(f"{key}: doesn't know of float16's loss scaling; use bfloat16 or float32")
    if name != "adda":
        return found
    if stage.starts_from == "base":
        found.append(
            "strategy: adda goes on from an encoder and a head that know the source rows; write stages, "
            "the first with strategy {kind: layer_decay, decay: 1, head: pooled}"
        )
    if stage.budget.eval_steps is not None:
        found.append(
            "train.eval_steps: adda looks at no labels, so it has no loss on validation rows; leave it out "
            "of this stage, and choose by sweep.metric: infomax"
        )
    return found


def _needed(names: dict[str, dict[str, JsonValue]]) -> list[tuple[str, str]]:
    needed = [(name, "unlabelled") for name in names if name in ON_TARGET]
    needed += [(name, "replay") for name in names if name in ("ewc", "replay")]
    if names.get("kl_to_base", {}).get("on") == "replay":
        needed.append(("kl_to_base", "replay"))
    return needed


def _frozen(trained: frozenset[str]) -> bool:
    return all(name.startswith("head.") for name in trained)


def _adds_products(stage: Stage) -> bool:
    adapter = stage.adapter
    return adapter is not None and adapter.peft_type == LOW_RANK and not adapter.fields.get("use_dora")


def _method(stage: Stage) -> str:
    assert stage.adapter is not None
    return "DoRA" if stage.adapter.fields.get("use_dora") else stage.adapter.peft_type
