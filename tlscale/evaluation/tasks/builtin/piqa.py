"""PIQA: which of two ways reaches an everyday goal (Bisk et al. 2020, arXiv:1911.11641)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES, answered
from tlscale.evaluation.tasks.task import Document, Rows, Task


def hub_document(row: Mapping[str, Any]) -> Document:
    choices = (str(row["sol1"]), str(row["sol2"]))
    query = f"Question: {row['goal']}\nAnswer:"
    return Document(query=query, choices=choices, answer=int(row["label"]), text=str(row["goal"]))


FILE, HUB = "lm_eval_local/commonsense_reasoning/piqa.jsonl", "baber/piqa"
TASK = Task(
    name="piqa",
    summary="which of two ways reaches an everyday goal",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, split="validation", document=hub_document)),
    train=(Rows(path=FILE, span=EXAMPLES), Rows(hub=HUB, split="train", document=hub_document)),
    document=answered,
    metrics=("acc_norm", "acc"),
    unconditional="Answer:",
)
