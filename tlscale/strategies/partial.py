"""Partial fine-tuning by ordered rules over parameter names, first match wins.

Total coverage as in big_vision: a parameter that no rule covers is an error that lists it. Surgical
choices of which layers move follow Lee et al. 2022 (arXiv:2210.11466).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from tlscale.errors import PlanError
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD, Context, Strategy, stage
from tlscale.planning.types import Facts, ParamRule, Stage
from tlscale.recipe.base import Frozen

BLOCK = re.compile(r"(?:^|.*\.)(?:layers?|h|blocks?|stages)\.(\d+)\.")


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

    @model_validator(mode="after")
    def _one_way(self) -> Options:
        if bool(self.rules) == (self.last_layers is not None):
            raise ValueError("give exactly one of rules and last_layers")
        return self


def compile_partial(options: Options, context: Context) -> tuple[Stage, ...]:
    if options.last_layers is not None:
        rules = _top_blocks(options.last_layers, context.facts)
    else:
        rules = tuple(ParamRule(pattern=r.pattern, lr_scale=r.lr_scale) for r in options.rules)
    return (stage(context, rules=rules),)


def _top_blocks(count: int, facts: Facts) -> tuple[ParamRule, ...]:
    found = [match for tensor in facts.tensors if (match := BLOCK.match(tensor.name))]
    indices = sorted({int(match[1]) for match in found})
    if count > len(indices):
        raise PlanError(
            f"strategy.last_layers is {count}, but {facts.model} has {len(indices)} numbered blocks"
        )
    top = "|".join(map(str, indices[-count:]))
    prefixes = "|".join(sorted({re.escape(match[0][: match.start(1)]) for match in found}))
    head = (TRAIN_HEAD,) if any(t.name.startswith("head.") for t in facts.tensors) else ()
    return (*head, ParamRule(pattern=rf"(?:{prefixes})(?:{top})\..*", lr_scale=1.0), FREEZE_ALL)


STRATEGY = Strategy(
    "partial",
    "Chosen parameters are trained, by rules over their names.",
    Options,
    compile_partial,
    variants=lambda: ({"last_layers": 1}, {"rules": [{"pattern": ".*", "lr_scale": 1.0}]}),
)
