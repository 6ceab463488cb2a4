"""What a planned run's model takes as input, and which column of the recipe's rows that is."""

from __future__ import annotations

from typing import Literal

from tlscale.planning.types import Plan
from tlscale.recipe.types import Source

Input = Literal["text", "prompt", "messages", "anchor", "image", "audio"]
USUAL: dict[str, Input] = {
    "sequence-classification": "text",
    "sentence-embedding": "anchor",
    "image-classification": "image",
    "audio-classification": "audio",
}


def input_role(plan: Plan) -> Input:
    """The role that an input plays in the rows of the last stage."""
    task = plan.recipe.model.task
    if task in USUAL:
        return USUAL[task]
    source, looked = _source(plan), None
    if _own(plan) is None:
        looked = next((d.format for d in plan.data if d.role in ("train", "test")), None)
    if source is not None and (source.messages is not None or looked == "messages"):
        return "messages"
    if source is not None and (source.prompt is not None or looked == "prompt-completion"):
        return "text" if source.split_at is not None else "prompt"
    return "text"


def input_column(plan: Plan) -> str:
    """The column or template of the recipe's rows that the input is read from."""
    role = input_role(plan)
    source = _source(plan)
    named: str | None = None if source is None else getattr(source, role)
    return named or role


def split_mark(plan: Plan) -> str | None:
    """What ends the prompt inside a text, where the recipe's rows are cut there."""
    source = _source(plan)
    return None if source is None else source.split_at


def _own(plan: Plan) -> Source | None:
    return plan.stages[-1].stage.source if plan.stages else None


def _source(plan: Plan) -> Source | None:
    return _own(plan) or plan.recipe.data.train or plan.recipe.data.test
