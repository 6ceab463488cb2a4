"""HellaSwag: which ending goes on with a scene (Zellers et al. 2019, arXiv:1905.07830)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES
from tlscale.evaluation.tasks.rows import lines_of
from tlscale.evaluation.tasks.task import Document, Rows, Task

ENDINGS = 4


def six_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Context, index of the right ending, and the endings, a line each."""
    lines = lines_of(path)
    for start in range(0, len(lines) - ENDINGS - 1, ENDINGS + 2):
        context, gold, *endings = lines[start : start + ENDINGS + 2]
        yield {"context": context, "gold": int(gold), "endings": endings}


def document(row: Mapping[str, Any]) -> Document:
    context, endings = str(row["context"]), tuple(row["endings"])
    return Document(query=context, choices=endings, answer=int(row["gold"]), text=context)


def clean(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def hub_document(row: Mapping[str, Any]) -> Document:
    context = f"{row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    query = clean(f"{row['activity_label']}: {context}")
    endings = tuple(clean(ending) for ending in row["endings"])
    return Document(query=query, choices=endings, answer=int(row["label"]), text=query)


FILE, HUB = "hellaswag/hellaswag_val_full.txt.bz2", "Rowan/hellaswag"
TASK = Task(
    name="hellaswag",
    summary="which of four endings goes on with a scene",
    kind="choice",
    test=(
        Rows(path=FILE, reader=six_lines),
        Rows(hub=HUB, split="validation", document=hub_document),
    ),
    train=(
        Rows(path=FILE, reader=six_lines, span=EXAMPLES),
        Rows(hub=HUB, split="train", document=hub_document),
    ),
    document=document,
    metrics=("acc_norm", "acc"),
    unconditional="",
)
