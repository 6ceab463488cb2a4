"""Examples that are not the same in every epoch: drawn anew, by where they stand and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlscale.data.types import Example, LazyExamples, lengths

Vary = Callable[[Example, int, int], Example]
"""An example, the epoch and its number among the examples -> the example as that epoch has it.

A pure function, which keeps the length: so a run that goes on, and one on other processes, sees the same.
"""


def same(example: Example, epoch: int, number: int) -> Example:
    """The example as it is."""
    return example


class Varied(LazyExamples):
    """Examples as one epoch has them, each made when it is asked for."""

    def __init__(self, examples: Sequence[Example], vary: Vary, epoch: int = 0) -> None:
        self._examples, self._vary, self._epoch = examples, vary, epoch

    def __len__(self) -> int:
        return len(self._examples)

    def lengths(self) -> list[int]:
        """The tokens of each example."""
        return lengths(self._examples)

    def at(self, number: int) -> Example:
        return self._vary(self._examples[number], self._epoch, number)
