"""Partial fine-tuning by ordered rules over parameter names, first match wins.

Total coverage as in big_vision: a parameter that no rule covers is an error that lists it. Surgical
choices of which layers move follow Lee et al. 2022 (arXiv:2210.11466).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from tlscale.errors import PlanError
from tlscale.planning.blocks import numbered_blocks
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD, Context, Strategy, stage
from tlscale.planning.types import Facts, ParamRule, Stage
from tlscale.recipe.base import Frozen


class Rule(Frozen):
    """One decision: the parameters that `pattern` matches in full, and what becomes of them."""

    pattern: str = Field(description="Regular expression over the whole parameter name.")
    lr_scale: Annotated[float, Field(gt=0)] | None = Field(
        description="Factor on the learning rate; null freezes."
    )


class Options(Frozen):
    """Which parameters move."""

    rules: tuple[Rule, ...] = Field((), description="Ordered; the first that matches decides.")
    last_layers: Annotated[int, Field(gt=0)] | None = Field(
        None, description="In place of rules: train so many of the topmost blocks, and the head."
    )

    blocks: tuple[int, ...] = Field(
        (),
        description="In place of rules: train these blocks, counted from 0 at the input or from -1 at "
        "the top, and the head; `tlscale probe --gradients` ranks them.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Options:
        if bool(self.rules) + bool(self.blocks) + (self.last_layers is not None) != 1:
            raise ValueError("give exactly one of rules, blocks and last_layers")
        return self


def compile_partial(options: Options, context: Context) -> tuple[Stage, ...]:
    if options.rules:
        rules = tuple(ParamRule(pattern=r.pattern, lr_scale=r.lr_scale) for r in options.rules)
    else:
        rules = _chosen_blocks(options, context.facts)
    return (stage(context, rules=rules),)


def _chosen_blocks(options: Options, facts: Facts) -> tuple[ParamRule, ...]:
    patterns = list(numbered_blocks(facts).values())
    chosen = options.blocks or tuple(range(-(options.last_layers or 0), 0))
    beyond = [index for index in chosen if not -len(patterns) <= index < len(patterns)]
    if beyond:
        given = (
            f"last_layers is {options.last_layers}" if options.last_layers else f"blocks has {beyond[0]}"
        )
        raise PlanError(f"strategy.{given}, but {facts.model} has {len(patterns)} numbered blocks")
    head = (TRAIN_HEAD,) if any(t.name.startswith("head.") for t in facts.tensors) else ()
    trained = "|".join(dict.fromkeys(patterns[index] for index in chosen))
    return (*head, ParamRule(pattern=trained, lr_scale=1.0), FREEZE_ALL)


STRATEGY = Strategy(
    "partial",
    "Chosen parameters are trained, by rules over their names.",
    Options,
    compile_partial,
    variants=lambda: ({"last_layers": 1}, {"blocks": [0]}, {"rules": [{"pattern": ".*", "lr_scale": 1.0}]}),
)
