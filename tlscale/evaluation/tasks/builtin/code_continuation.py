"""Which lines go on a piece of Python: on the texts in the package, so that it runs without any data.

The other three endings are those of the next pieces, so a model that reads only the ending can't tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.task import Document, Rows, Task
from tlscale.recipe.paths import ASSETS

# Characters of a piece and of its ending, each up to the end of a line.
BEFORE, ENDING, ENDINGS = 240, 80, 4


def halves(text: str) -> tuple[str, str] | None:
    """The lines of about `BEFORE` characters, and the next ones; None where a text is too short."""
    cut = text.find("\n", BEFORE)
    end = text.find("\n", cut + ENDING)
    if cut < 0 or end < 0 or not text[cut:end].strip():
        return None
    return text[:cut].rstrip(), text[cut + 1 : end].rstrip()


def pieces(path: Path) -> Iterator[Mapping[str, Any]]:
    """Every text that is long enough, with the endings of those after it."""
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    found = [pair for pair in map(halves, texts) if pair]
    for at, (before, _) in enumerate(found):
        endings = [found[(at + step) % len(found)][1] for step in range(ENDINGS)]
        place = at % ENDINGS
        ordered = [*endings[1 : place + 1], endings[0], *endings[place + 1 :]]
        yield {"before": before, "endings": ordered, "right": place}


def document(row: Mapping[str, Any]) -> Document:
    before = str(row["before"])
    return Document(query=before, choices=tuple(row["endings"]), answer=int(row["right"]), text=before)


TASK = Task(
    name="code_continuation",
    summary="which of four endings goes on a piece of Python; needs no data",
    kind="choice",
    test=(Rows(path=str(ASSETS / "code-test.jsonl"), reader=pieces),),
    train=(Rows(path=str(ASSETS / "code-train.jsonl"), reader=pieces),),
    document=document,
    metrics=("acc", "acc_norm"),
    delimiter="\n",
    unconditional="\n",
)
