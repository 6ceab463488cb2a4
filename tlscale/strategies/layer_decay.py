"""Discriminative learning rates: each block learns more slowly than the one above it.

Howard and Ruder 2018 (arXiv:1801.06146) divide by 2.6 from block to block; BERT-like encoders are usually
tuned with a factor of 0.65 to 0.95 (Clark et al. 2020, arXiv:2003.10555).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tlscale.planning.blocks import depth_patterns
from tlscale.planning.strategy import Context, Strategy, stage
from tlscale.planning.types import Head, ParamRule, Stage
from tlscale.recipe.base import Frozen


class Options(Frozen):
    """How fast the rate falls towards the input."""

    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="Factor on the learning rate from each block to the one below; 1 for none."
    )
    head: Literal["native", "pooled"] = Field(
        "native",
        description="The model class's own head, or a linear one over pooled, normalized features.",
    )


def compile_layer_decay(options: Options, context: Context) -> tuple[Stage, ...]:
    rules = tuple(
        ParamRule(pattern=pattern, lr_scale=options.decay**depth)
        for depth, pattern in enumerate(depth_patterns(context.facts))
    )
    return (stage(context, rules=rules, head=Head(kind=options.head)),)


STRATEGY = Strategy(
    "layer_decay",
    "Every parameter is trained, the more slowly the closer to the input.",
    Options,
    compile_layer_decay,
)
