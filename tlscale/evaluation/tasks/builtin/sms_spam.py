"""SMS spam collection: spam or not (Almeida et al. 2011)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.rows import lines_of
from tlscale.evaluation.tasks.task import Document, Rows, Task

NAMES = {"ham": "ordinary message", "spam": "spam"}


def lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in lines_of(path):
        label, _, text = line.partition("\t")
        yield {"label": label, "sms": text}


def document(row: Mapping[str, Any]) -> Document:
    return Document(text=str(row["sms"]).strip(), answer=NAMES[str(row["label"]).strip()])


def prompt(text: str) -> str:
    return f"Message: {text}\nKind:"


PATH, HUB = "sms_spam/sms.tsv", "ucirvine/sms_spam"
TASK = Task(
    name="sms_spam",
    summary="spam or ordinary text messages",
    kind="classification",
    test=(Rows(path=PATH, reader=lines, span=(0.2, 1.0)), Rows(hub=HUB, split="train", span=(0.2, 1.0))),
    train=(Rows(path=PATH, reader=lines, span=(0.0, 0.2)), Rows(hub=HUB, split="train", span=(0.0, 0.2))),
    document=document,
    metrics=("f1_macro", "acc"),
    labels=tuple(NAMES.values()),
    prompt=prompt,
    unconditional="Kind:",
)
