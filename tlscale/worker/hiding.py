"""What differs from epoch to epoch: tokens hidden from a masked language model, and pictures.

What is scored is always the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlscale.data.augmenting import augmenting
from tlscale.data.examples import Example
from tlscale.data.masking import hiding
from tlscale.data.varying import Varied, Vary, same
from tlscale.planning.types import Plan
from tlscale.recipe.masking import Masking

JUDGED = ("validation", "test", "retention")


def varied(plan: Plan, processor: Any) -> Vary:
    """How training rows differ from epoch to epoch.

    Raises:
        PlanError: the model's tokenizer has no mask token.
    """
    if plan.recipe.data.augmentation is not None:
        return augmenting(processor, plan.recipe.data.augmentation, f"seed {plan.seed}")
    return _hiding(plan, processor, f"seed {plan.seed}")


def fixed(plan: Plan, processor: Any, rows: Sequence[Example]) -> Sequence[Example]:
    """`rows` to be scored, always with the same tokens hidden.

    It depends on the recipe's seed alone, so that repeats by `seeds` are judged on the same tokens.

    Raises:
        PlanError: the model's tokenizer has no mask token.
    """
    if plan.recipe.model.task != "masked-lm":
        return rows
    return Varied(rows, _hiding(plan, processor, f"scored rows of seed {plan.recipe.seed}"))


def judged(
    plan: Plan, processor: Any, examples: Mapping[str, Sequence[Example]]
) -> dict[str, Sequence[Example]]:
    """`examples` by role, those that are scored as `fixed` has them."""
    return {
        role: fixed(plan, processor, rows) if role in JUDGED else rows for role, rows in examples.items()
    }


def _hiding(plan: Plan, processor: Any, name: str) -> Vary:
    if plan.recipe.model.task != "masked-lm":
        return same
    return hiding(processor, plan.recipe.data.masking or Masking()).by(name)
