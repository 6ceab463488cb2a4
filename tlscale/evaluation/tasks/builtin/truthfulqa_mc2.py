"""TruthfulQA MC2: the probability on all true answers together (Lin et al. 2022, arXiv:2109.07958)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.truthfulqa import PLACES, PRIMER, question
from tlscale.evaluation.tasks.task import Document, Task


def mc2(row: Mapping[str, Any]) -> Document:
    return question(row, "mc2_targets")


TASK = Task(
    name="truthfulqa_mc2",
    summary="the probability of the true answers among popular falsehoods",
    kind="choice",
    test=PLACES,
    document=mc2,
    metrics=("mc2",),
    description=PRIMER,
)
