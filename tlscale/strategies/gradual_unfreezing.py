"""Gradual unfreezing: the head learns first, then block after block joins in from the top.

Howard and Ruder 2018 (arXiv:1801.06146), with their discriminative rates (each block 2.6 times slower
than the one above). Blocks that wait rest in the optimizer at rate 0 and without gradients: groups are
fixed before the first step, as data parallelism and ZeRO need it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tlscale.errors import PlanError
from tlscale.planning.blocks import depth_patterns
from tlscale.planning.strategy import Context, Strategy, stage
from tlscale.planning.types import Head, ParamRule, Stage
from tlscale.recipe.base import Frozen

ULMFIT = 1 / 2.6


class Options(Frozen):
    """When blocks join, and how fast they learn then."""

    steps_per_block: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="Optimizer steps between one block and the next; by default train.max_steps is shared "
        "out so that the embeddings join after half of it.",
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        ULMFIT, description="Factor on the learning rate from each block to the one below; 1 for none."
    )
    blocks: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Unfreeze so many of the topmost blocks; by default all, and the embeddings."
    )
    head: Literal["native", "pooled"] = Field(
        "native",
        description="The model class's own head, or a linear one over pooled, normalized features.",
    )


def compile_gradual_unfreezing(options: Options, context: Context) -> tuple[Stage, ...]:
    patterns = depth_patterns(context.facts)
    joining = patterns if options.blocks is None else patterns[: 1 + options.blocks]
    every = options.steps_per_block
    if every is None:
        if context.train.max_steps is None:
            raise PlanError(
                "strategy.steps_per_block: missing; say after how many steps the next block joins, or set "
                "train.max_steps, half of which is then shared out"
            )
        every = max(1, context.train.max_steps // (2 * max(1, len(joining) - 1)))
    rules = [
        ParamRule(pattern=pattern, lr_scale=options.decay**depth, from_step=depth * every)
        for depth, pattern in enumerate(joining)
    ]
    rules += [ParamRule(pattern=pattern, lr_scale=None) for pattern in patterns[len(joining) :]]
    return (stage(context, rules=tuple(rules), head=Head(kind=options.head)),)


STRATEGY = Strategy(
    "gradual_unfreezing",
    "The head is trained first, then block after block joins in from the top.",
    Options,
    compile_gradual_unfreezing,
    variants=lambda: ({"steps_per_block": 2}, {"blocks": 1, "steps_per_block": 1}, {}),
)
