"""Examples that have a weight or a difficulty of their own, reckoned before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tlscale.data.types import Example, LazyExamples, lengths


class Marked(LazyExamples):
    """`examples` as they are, each with its weight in the task's loss where `weights` are given.

    `difficulty` is for the order in which they come. Both have one number for each example.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        weights: Sequence[float] | None = None,
        difficulty: Sequence[float] | None = None,
    ) -> None:
        assert all(given is None or len(given) == len(examples) for given in (weights, difficulty))
        self._examples, self._weights, self.difficulty = examples, weights, difficulty

    def __len__(self) -> int:
        return len(self._examples)

    def lengths(self) -> list[int]:
        """The tokens of each example."""
        return lengths(self._examples)

    def at(self, number: int) -> Example:
        found = self._examples[number]
        return found if self._weights is None else replace(found, weight=self._weights[number])
