"""MMLU: 57 subjects, lettered choices (Hendrycks et al. 2021, arXiv:2009.03300).

Examples are the subject's own five of the dev set; `first` takes them in their published order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.builtin.given import LETTERS
from tlscale.evaluation.tasks.task import Document, Rows, Task
from tlscale.recipe.types import Source
from tlscale.sources import records

CHOICES = 4


def subjects(part: str, folder: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of all subjects' csv files, with the subject."""
    for path in sorted(folder.glob(f"*_{part}.csv")):
        subject = path.name.removesuffix(f"_{part}.csv")
        for row in records(Source(path=str(path))):
            yield {**row.values, "subject": subject, "where": f"{part}/{row.where}"}


def document(row: Mapping[str, Any]) -> Document:
    choices = [str(row[f"choice{at}"]) for at in range(CHOICES)]
    return made(row, choices, int(row["answer"]), str(row["where"]))


def hub_document(row: Mapping[str, Any]) -> Document:
    return made(row, list(row["choices"]), LETTERS.index(str(row["answer"])), "")


def made(row: Mapping[str, Any], choices: list[str], gold: int, where: str) -> Document:
    question, subject = str(row["question"]).strip(), str(row["subject"])
    letters = tuple(LETTERS[: len(choices)])
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, choices, strict=True))
    return Document(
        query=f"{question}\n{listed}\nAnswer:",
        choices=letters,
        answer=gold,
        text=question,
        description=(
            "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n"
        ),
        tags={"subject": subject},
        where=where,
    )


HUB = "cais/mmlu"
TASK = Task(
    name="mmlu",
    summary="57 subjects from school to profession, lettered choices",
    kind="choice",
    test=(
        Rows(path="mmlu/test", reader=partial(subjects, "test")),
        Rows(hub=HUB, name="all", split="test", document=hub_document),
    ),
    train=(
        Rows(path="mmlu/dev", reader=partial(subjects, "dev")),
        Rows(hub=HUB, name="all", split="dev", document=hub_document),
    ),
    document=document,
    metrics=("acc",),
    group="subject",
    unconditional="Answer:",
)
