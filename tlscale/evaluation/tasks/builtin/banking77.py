"""Banking77: what a bank's customer wants, 77 intents (Casanueva et al. 2020, arXiv:2003.04807)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.task import Document, Rows, Task


def document(row: Mapping[str, Any]) -> Document:
    return Document(text=str(row["text"]), answer=name(row["category"]))


def hub_document(row: Mapping[str, Any]) -> Document:
    return Document(text=str(row["text"]), answer=name(row["label"]))


def name(label: Any) -> str:
    return str(label).replace("_", " ")


def prompt(text: str) -> str:
    return f"Query: {text}\nIntent:"


HUB = "PolyAI/banking77"
TASK = Task(
    name="banking77",
    summary="what a bank's customer wants, 77 intents",
    kind="classification",
    test=(Rows(path="banking77/test.csv"), Rows(hub=HUB, split="test", document=hub_document)),
    train=(Rows(path="banking77/train.csv"), Rows(hub=HUB, split="train", document=hub_document)),
    document=document,
    metrics=("acc", "f1_macro"),
    prompt=prompt,
    hypothesis="The customer's request is about {label}.",
    unconditional="Intent:",
)
