"""BoolQ: yes or no about a passage (Clark et al. 2019, arXiv:1905.10044)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES, answered
from tlscale.evaluation.tasks.task import Document, Rows, Task


def hub_document(row: Mapping[str, Any]) -> Document:
    query = f"Passage: {row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return Document(
        query=query,
        choices=("no", "yes"),
        answer=int(row["answer"]),
        text=f"{row['passage']} {row['question']}?",
    )


FILE, HUB = "lm_eval_local/reading_comprehension/boolq.jsonl", "google/boolq"
TASK = Task(
    name="boolq",
    summary="yes or no about a passage",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, split="validation", document=hub_document)),
    train=(Rows(path=FILE, span=EXAMPLES), Rows(hub=HUB, split="train", document=hub_document)),
    document=answered,
    metrics=("acc",),
    unconditional="Answer:",
)
