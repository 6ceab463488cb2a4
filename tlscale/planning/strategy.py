"""What a strategy is: a name, typed options, and a pure function to stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from tlscale.planning.tasks import task_sizes
from tlscale.planning.types import (
    AskedBatch,
    Budget,
    Facts,
    Head,
    ParamRule,
    Safety,
    Schedule,
    Stage,
    Tasks,
    Term,
    Update,
)
from tlscale.recipe.base import Frozen
from tlscale.recipe.objective import Objective
from tlscale.recipe.train import Train
from tlscale.recipe.types import Recipe

TRAIN_ALL = ParamRule(pattern=".*", lr_scale=1.0)
FREEZE_ALL = ParamRule(pattern=".*", lr_scale=None)
TRAIN_HEAD = ParamRule(pattern=r"head\..*", lr_scale=1.0)


@dataclass(frozen=True)
class Context:
    """What a strategy may look at besides its options."""

    recipe: Recipe
    train: Train
    facts: Facts


@dataclass(frozen=True)
class Strategy:
    """A named compiler from options to stages.

    `compile(options, context)` must be pure and deterministic, and every stage's rules must decide on
    every parameter of `context.facts`. `refine` is for options whose type depends on other keys:
    it gets the recipe's mapping and returns the model to check it by (raising `UsageError`).
    `variants` lists the smallest options that are valid, one mapping for each form of the strategy; the
    contract test compiles them all.
    """

    name: str
    summary: str
    options: type[Frozen]
    compile: Callable[[Any, Context], tuple[Stage, ...]]
    refine: Callable[[Mapping[str, Any]], type[Frozen]] | None = None
    variants: Callable[[], tuple[Mapping[str, Any], ...]] = lambda: ({},)


def terms(asked: Objective) -> tuple[Term, ...]:
    """The weighted sum that `asked` means: first the task or what stands for it, no term of weight 0."""
    smoothing: dict[str, JsonValue] = (
        {"label_smoothing": asked.label_smoothing} if asked.label_smoothing else {}
    )
    found = [Term(options=smoothing)]
    if asked.pet is not None:
        found = [Term(name="pet", weight=1 - asked.pet.mlm, options=smoothing)]
        found += [Term(name="pet_mlm", weight=asked.pet.mlm)] if asked.pet.mlm else []
    for name in type(asked).model_fields:
        part = getattr(asked, name)
        if isinstance(part, Frozen) and part is not asked.pet:
            options = part.model_dump(mode="json")
            weight = options.pop("weight")
            if weight:
                found.append(Term(name=name, weight=weight, options=options))
    return tuple(found)


def tasks(context: Context) -> Tasks | None:
    """The tasks of data.train, where it has several."""
    source = context.recipe.data.train
    if source is None or source.tasks is None:
        return None
    asked = context.train.multi_task
    return Tasks(
        sizes=task_sizes(context.facts.labels),
        temperature=asked.temperature,
        balance=asked.balance,
        uncertainty_rate=asked.uncertainty_rate,
        adapters=asked.adapters,
    )


def stage(context: Context, **slots: Any) -> Stage:
    """A stage with the recipe's training settings in every slot that `slots` leaves open."""
    train = context.train
    defaults: dict[str, Any] = {
        "name": "train",
        "starts_from": "base",
        "source": None,
        "rules": (TRAIN_ALL,),
        "adapter": None,
        "head": Head(kind="native"),
        "objective": terms(train.objective),
        "update": Update(
            optim=train.optim,
            learning_rate=train.learning_rate,
            weight_decay=train.weight_decay,
            betas=(train.adam_beta1, train.adam_beta2),
            max_grad_norm=train.max_grad_norm,
        ),
        "schedule": Schedule(kind=train.lr_scheduler_type, warmup_ratio=train.warmup_ratio),
        "budget": Budget(
            epochs=train.num_train_epochs,
            max_steps=train.max_steps,
            eval_steps=train.eval_steps,
            save_steps=train.save_steps,
            logging_steps=train.logging_steps,
            early_stopping_patience=train.early_stopping_patience,
        ),
        "batch": AskedBatch(
            train_batch_size=train.train_batch_size,
            per_device_train_batch_size=train.per_device_train_batch_size,
            gradient_accumulation_steps=train.gradient_accumulation_steps,
        ),
        "group_by_length": train.group_by_length,
        "gradient_checkpointing": train.gradient_checkpointing,
        "safety": Safety(
            keep_checkpoints=train.keep_checkpoints,
            async_save=train.async_save,
            hang_timeout=train.hang_timeout,
            on_nonfinite=train.on_nonfinite,
            max_skipped_steps=train.max_skipped_steps,
            on_save_failure=train.on_save_failure,
        ),
        "tasks": tasks(context),
        "averaging": train.averaging,
        "mixout": train.mixout,
        "curriculum": train.curriculum,
        "importance": train.importance if train.importance and train.importance.strength else None,
    }
    return Stage(**{**defaults, **slots})
