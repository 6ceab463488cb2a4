"""ARC-Easy: grade-school science, the easy part (Clark et al. 2018, arXiv:1803.05457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES, answered, labelled
from tlscale.evaluation.tasks.task import Document, Rows, Task


def hub_document(row: Mapping[str, Any]) -> Document:
    choices, gold = labelled(row)
    query = f"Question: {row['question']}\nAnswer:"
    return Document(query=query, choices=choices, answer=gold, text=str(row["question"]))


FILE, HUB, NAME = "lm_eval_local/world_knowledge/arc_easy.jsonl", "allenai/ai2_arc", "ARC-Easy"
TASK = Task(
    name="arc_easy",
    summary="grade-school science, the easy part",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, name=NAME, split="test", document=hub_document)),
    train=(
        Rows(path=FILE, span=EXAMPLES),
        Rows(hub=HUB, name=NAME, split="train", document=hub_document),
    ),
    document=answered,
    metrics=("acc_norm", "acc"),
    unconditional="Answer:",
)
