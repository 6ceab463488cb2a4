"""What predictors that read no prompt share: one score for each class of an item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from tlscale.evaluation.requests import ChoiceScores
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.evaluation.tasks.run import Answers
from tlscale.evaluation.tasks.task import Document

Batch: TypeAlias = Sequence[Document]
Scores: TypeAlias = Callable[[Prepared], Callable[[Batch], torch.Tensor]]


@dataclass(frozen=True)
class ClassPredictor:
    """Scores classes in batches of documents.

    `scores` gets the task once, and gives a function from documents to log-probabilities [rows, classes].
    Inputs that are too long lose their end, as encoders' tokenizers cut them.
    """

    name: str
    scores: Scores
    size: int
    learns: bool = False
    shares: bool = False
    kinds: frozenset[str] = frozenset({"classification"})

    def overflow(self, prepared: Prepared, numbers: Sequence[int]) -> tuple[int, ...]:
        """No prompt, so none that is too long."""
        return (0,) * len(numbers)

    @torch.inference_mode()
    def answer(self, prepared: Prepared, numbers: Sequence[int]) -> Answers:
        """The scores of each item, in batches of like length."""
        if not numbers:
            return
        of = self.scores(prepared)
        ordered = sorted(numbers, key=lambda at: len(prepared.items[at].document.text), reverse=True)
        for start in range(0, len(ordered), self.size):
            group = ordered[start : start + self.size]
            rows = of([prepared.items[at].document for at in group]).double().tolist()
            for at, row in zip(group, rows, strict=True):
                yield at, (ChoiceScores(tuple(row), (1,) * len(row)),)


def label_texts(prepared: Prepared, template: str) -> list[str]:
    """Each label in the words of `template`."""
    return [template.replace("{label}", label) for label in prepared.labels]
