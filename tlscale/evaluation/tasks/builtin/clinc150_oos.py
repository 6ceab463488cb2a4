"""CLINC150: 150 intents, and queries that belong to none of them (Larson et al. 2019, arXiv:1909.02027)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.outcome import best, probabilities
from tlscale.evaluation.tasks.task import Document, Rows, Task, Values

NONE = "oos"


def parts(names: tuple[str, ...], path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of the parts `names` of the published file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in names:
        for number, (text, intent) in enumerate(content[name]):
            yield {"text": text, "intent": intent, "where": f"{name}[{number}]"}


def document(row: Mapping[str, Any]) -> Document:
    intent = str(row["intent"])
    scope = "out" if intent == NONE else "in"
    return Document(
        text=str(row["text"]),
        answer=intent.replace("_", " "),
        tags={"scope": scope},
        where=str(row["where"]),
    )


def values(document: Document, chosen: int, scores: tuple[float, ...]) -> Values:
    """How sure the answer is; whether it is right counts in scope alone."""
    found = {"confidence": max(probabilities(scores)), "positive": float(document.answer is not None)}
    if document.answer is not None:
        found["acc_in_scope"] = float(best(scores) == document.answer)
    return found


def prompt(text: str) -> str:
    return f"Query: {text}\nIntent:"


FILE = "clinc150/data_full.json"
TASK = Task(
    name="clinc150_oos",
    summary="150 intents, and whether a query belongs to none of them",
    kind="classification",
    test=(Rows(path=FILE, reader=partial(parts, ("test", "oos_test"))),),
    train=(Rows(path=FILE, reader=partial(parts, ("train",))),),
    document=document,
    metrics=("auroc", "oos_recall", "acc_in_scope"),
    none=NONE,
    prompt=prompt,
    hypothesis="The request is about {label}.",
    unconditional="Intent:",
    extra=values,
)
