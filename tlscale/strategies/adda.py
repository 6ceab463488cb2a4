"""Adversarial discriminative domain adaptation: a target encoder that passes for the source's.

Tzeng et al. 2017 (arXiv:1702.05464). The stage before it trains encoder and head on source rows. Here the
encoder goes on from there without labels: it learns to give rows of data.unlabelled features that look like
those the encoder of the start gives source rows. The head rests, and answers for both.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tlscale.planning.strategy import TRAIN_ALL, Context, Strategy, stage, terms
from tlscale.planning.types import Head, ParamRule, Stage, Term
from tlscale.recipe.base import Frozen

HEAD_RESTS = ParamRule(pattern=r"head\..*", lr_scale=None)


class Options(Frozen):
    """The discriminator."""

    hidden: Annotated[int, Field(gt=0)] = Field(128, description="Hidden units of the discriminator.")
    lr_scale: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Factor on the stage's learning rate, for the discriminator."
    )


def compile_adda(options: Options, context: Context) -> tuple[Stage, ...]:
    _, *beside = terms(context.train.objective)
    made = stage(
        context,
        rules=(HEAD_RESTS, TRAIN_ALL),
        head=Head(kind="pooled"),
        objective=(Term(name="adda", options=options.model_dump(mode="json")), *beside),
    )
    return (made,)


STRATEGY = Strategy(
    "adda",
    "The encoder of the stage before is adapted to data.unlabelled, against a discriminator.",
    Options,
    compile_adda,
)
