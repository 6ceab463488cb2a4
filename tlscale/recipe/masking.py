"""What a recipe may say about the tokens that a masked language model has to find again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tlscale.recipe.base import Frozen


class Masking(Frozen):
    """How tokens are hidden (Devlin et al. 2019, arXiv:1810.04805)."""

    rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.15, description="Share of a row's tokens that are to be found again."
    )
    whole_words: bool = Field(
        False, description="Hides all pieces of a word together, for tokenizers that cut words."
    )
