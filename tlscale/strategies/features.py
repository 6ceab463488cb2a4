"""Feature extraction: the backbone frozen, its features computed once, a head trained on them.

Yosinski et al. 2014 (arXiv:1411.1792). The head is a linear layer, or one hidden layer, over the pooled
and by default length-normalized representation. It begins at zero: gradients lie in the span of the rows'
features, so whatever a random beginning has beside it would stay.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD, Context, Strategy, stage
from tlscale.planning.types import Head, Stage
from tlscale.recipe.base import Frozen


class Options(Frozen):
    """The head on top of the features."""

    hidden: Annotated[int, Field(ge=0)] = Field(
        0, description="Units of one hidden layer; 0 for a linear head."
    )
    normalize: bool = Field(True, description="Scale each feature vector to length sqrt(dimension).")


def compile_features(options: Options, context: Context) -> tuple[Stage, ...]:
    head = Head(kind="pooled", hidden=options.hidden, normalize=options.normalize, start="zeros")
    return (stage(context, rules=(TRAIN_HEAD, FREEZE_ALL), head=head),)


STRATEGY = Strategy(
    "features", "The backbone is frozen; a head is trained on its features.", Options, compile_features
)
