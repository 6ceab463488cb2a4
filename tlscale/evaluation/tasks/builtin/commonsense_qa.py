"""CommonsenseQA with lettered choices (Talmor et al. 2019, arXiv:1811.00937)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES, LETTERS, choice, labelled
from tlscale.evaluation.tasks.task import Document, Rows, Task


def hub_document(row: Mapping[str, Any]) -> Document:
    texts, gold = labelled(row)
    letters = tuple(LETTERS[: len(texts)])
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
    query = f"Question: {row['question']}\nChoices:\n{listed}\nAnswer:"
    return Document(query=query, choices=letters, answer=gold, text=str(row["question"]))


FILE, HUB = "lm_eval_local/commonsense_reasoning/commonsense_qa.jsonl", "tau/commonsense_qa"
TASK = Task(
    name="commonsense_qa",
    summary="common sense, lettered choices (the local file has four of the five)",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, split="validation", document=hub_document)),
    train=(Rows(path=FILE, span=EXAMPLES), Rows(hub=HUB, split="train", document=hub_document)),
    document=choice,
    metrics=("acc",),
    unconditional="Answer:",
)
