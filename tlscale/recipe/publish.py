"""What a recipe may say about publishing its result."""

from __future__ import annotations

from pydantic import Field

from tlscale.recipe.base import Frozen


class Publish(Frozen):
    """Where the result goes on the Hub when it is good. Checked before anything is trained."""

    to: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="The model's id on the Hub, ORG/NAME.",
    )
    private: bool = Field(True, description="Whether only its owners see it.")
    license: str | None = Field(
        None,
        description="The licence of the result, by the Hub's name; by default that of the source that asks "
        "for most.",
    )
    base: str | None = Field(
        None,
        description="The Hub id of a base that the recipe reads from a folder; its weights are compared.",
    )
    merged: bool = Field(False, description="Publish base and adapter merged into one checkpoint.")
    despite_verdict: str | None = Field(
        None, min_length=1, description="Why to publish whatever the verdict; stands on the card."
    )
