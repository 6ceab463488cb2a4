"""What a check of a plan looks at, and what it says where parts of a recipe don't go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tlscale.planning.types import Facts, Stage, World
from tlscale.recipe.types import Recipe

VIRTUAL_TOKENS = (
    "PROMPT_TUNING",
    "PREFIX_TUNING",
    "P_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "CPT",
    "ADAPTION_PROMPT",
)


@dataclass(frozen=True)
class Case:
    """One stage in its surroundings; `stage` is `None` where a recipe trains nothing."""

    recipe: Recipe
    facts: Facts
    world: World
    stage: Stage | None
    trained: frozenset[str]

    @property
    def quantized(self) -> bool:
        return self.recipe.model.quantization != "none"

    @property
    def pooled(self) -> bool:
        return self.stage is not None and self.stage.head.kind == "pooled"

    @property
    def scores(self) -> bool:
        """Whether there is anything to score: rows of the recipe's own, or evaluation tasks."""
        data, asked = self.recipe.data, self.recipe.evaluate
        return bool(data.test or data.train or asked.tasks or asked.predictor)

    @property
    def moves_backbone(self) -> bool:
        """Whether the backbone's own weights train (matrices, which quantization would pack)."""
        sizes = {tensor.name: len(tensor.shape) for tensor in self.facts.tensors}
        return any(sizes[name] >= 2 and not name.startswith("head.") for name in self.trained)

    @property
    def metrics(self) -> tuple[tuple[str, str], ...]:
        """(role, metric) of every metric that the recipe asks for."""
        asked = self.recipe.evaluate
        return tuple(("target", m) for m in asked.target or ()) + tuple(
            ("retention", m) for m in asked.retention or ()
        )


@dataclass(frozen=True)
class Clash:
    """Refuses a recipe: the key, when, why, and what works instead."""

    key: str
    when: Callable[[Case], bool]
    reason: str
    instead: str
