"""AG News: the section of a news item (Zhang et al. 2015, arXiv:1509.01626)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.task import Document, Rows, Task

LABELS = ("World", "Sports", "Business", "Sci/Tech")
NAMES = ("world politics", "sports", "business", "science and technology")


def without_header(path: Path) -> Iterator[Mapping[str, Any]]:
    """Class from 1, title and description, as published."""
    with path.open(encoding="utf-8", newline="") as file:
        for label, title, text in csv.reader(file):
            yield {"label": int(label) - 1, "text": f"{title} {text}".replace("\\", " ")}


def document(row: Mapping[str, Any]) -> Document:
    label = row["label"]
    index = LABELS.index(label) if isinstance(label, str) else int(label)
    return Document(text=str(row["text"]), answer=index)


def prompt(text: str) -> str:
    return f"Article: {text}\nSection:"


HUB = "fancyzhx/ag_news"
TASK = Task(
    name="ag_news",
    summary="the section of a news item, four classes",
    kind="classification",
    test=(
        Rows(path="restricted/ag_news_test/test.csv", reader=without_header),
        Rows(hub=HUB, split="test"),
    ),
    train=(
        Rows(path="restricted/ag_news_test/test.csv", reader=without_header, span=(0.0, 0.1)),
        Rows(hub=HUB, split="train"),
    ),
    document=document,
    metrics=("acc", "f1_macro"),
    labels=NAMES,
    prompt=prompt,
    template="This is a news article about {label}.",
    hypothesis="This text is about {label}.",
    unconditional="Section:",
)
