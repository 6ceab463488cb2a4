"""The encoder learns from pairs of texts, alike within a class, unlike between: SetFit's first stage.

Tunstall et al. 2022 (arXiv:2209.11055). The stage after it trains a head on the encoder's features, such as
`kind: features`.
"""

from __future__ import annotations

from tlscale.planning.strategy import TRAIN_ALL, Context, Strategy, stage, terms
from tlscale.planning.types import Head, ParamRule, Stage, Term
from tlscale.recipe.base import Frozen

HEAD_RESTS = ParamRule(pattern=r"head\..*", lr_scale=None)


class Options(Frozen):
    """Learning from pairs has no options of its own."""


def compile_contrastive(options: Options, context: Context) -> tuple[Stage, ...]:
    _, *beside = terms(context.train.objective)
    made = stage(
        context,
        rules=(HEAD_RESTS, TRAIN_ALL),
        head=Head(kind="pooled", start="zeros"),  # that of the next stage, as it begins
        objective=(Term(name="contrastive"), *beside),
    )
    return (made,)


STRATEGY = Strategy(
    "contrastive",
    "The encoder is trained on pairs of texts, before a head is.",
    Options,
    compile_contrastive,
)
