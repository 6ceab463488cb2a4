"""A new task learns how much to take of each trained adapter; base and adapters are frozen.

AdapterFusion (Pfeiffer et al. 2021, arXiv:2005.00247) over LoRA: in every adapted layer the layer's input
asks, the changes that the adapters make of its output answer, and their softmax-weighted mean is added.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from tlscale.planning.fusion import FUSION
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD, Context, Strategy, stage
from tlscale.planning.types import Adapter, Head, Stage
from tlscale.recipe.base import Frozen


class Options(Frozen):
    """The adapters to combine, and the width of the attention over them."""

    adapters: tuple[str, ...] = Field(
        min_length=2,
        description="Directories of finished runs with strategy kind: peft, method: lora and head: pooled, "
        "all of this recipe's base.",
    )
    size: Annotated[int, Field(gt=0)] = Field(
        16, description="Width of the queries and keys, in each layer."
    )


def compile_fusion(options: Options, context: Context) -> tuple[Stage, ...]:
    fields: dict[str, JsonValue] = {"adapters": list(options.adapters), "size": options.size}
    adapter = Adapter(peft_type=FUSION, fields=fields)
    rules = (TRAIN_HEAD, FREEZE_ALL)
    return (stage(context, adapter=adapter, rules=rules, head=Head(kind="pooled")),)


STRATEGY = Strategy(
    "fusion",
    "Attention over trained adapters is learned; the base and the adapters are frozen.",
    Options,
    compile_fusion,
    variants=lambda: ({"adapters": ["runs/one", "runs/other"]},),
)
