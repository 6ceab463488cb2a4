"""Full fine-tuning: every parameter moves (Devlin et al. 2019, BERT). Also pretraining from scratch."""

from __future__ import annotations

from tlscale.planning.strategy import TRAIN_ALL, Context, Strategy, stage
from tlscale.planning.types import Stage
from tlscale.recipe.base import Frozen


class Options(Frozen):
    """Full fine-tuning has no options of its own."""


def compile_full(options: Options, context: Context) -> tuple[Stage, ...]:
    return (stage(context, rules=(TRAIN_ALL,)),)


STRATEGY = Strategy("full", "Every parameter is trained.", Options, compile_full)
