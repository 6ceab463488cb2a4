"""WinoBias: whom a pronoun means, for and against the stereotype (Zhao et al. 2018, arXiv:1804.06876).

Two neighbouring sentences name the same two people, so each supplies the other's wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.rows import lines_of
from tlscale.evaluation.tasks.task import Document, Rows, Task, Values

BRACKETS = re.compile(r"\[(.*?)\]")
PRONOUNS = {"he", "she", "his", "her", "him"}


def sentences(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Every sentence whose two people can be told, of both types and both directions, test parts."""
    for path in sorted(folder.glob("*_stereotyped_type?.txt.test")):
        lines = lines_of(path)
        for number in range(0, len(lines) - 1, 2):
            pair = [marked(line) for line in lines[number : number + 2]]
            for at, (own, other) in enumerate((pair, pair[::-1])):
                text, entity, pronoun = own
                if entity and pronoun and other[1] and other[1] in text.casefold() and other[1] != entity:
                    yield {
                        "text": text,
                        "right": entity,
                        "wrong": other[1],
                        "pronoun": pronoun,
                        "direction": path.name.partition("_")[0],
                        "where": f"{path.name}:{number + at + 1}",
                    }


def marked(line: str) -> tuple[str, str, str]:
    """The sentence without its marks, whom the pronoun means, and the pronoun."""
    text = line.partition(" ")[2].strip()
    found = [one.casefold() for one in BRACKETS.findall(text)]
    entity = next((one for one in found if one not in PRONOUNS), "")
    pronoun = next((one for one in found if one in PRONOUNS), "")
    return BRACKETS.sub(r"\1", text), entity, pronoun


def document(row: Mapping[str, Any]) -> Document:
    right, wrong = str(row["right"]), str(row["wrong"])
    choices = tuple(sorted((right, wrong)))
    return Document(
        query=f'{row["text"]} In this sentence, "{row["pronoun"]}" refers to',
        choices=choices,
        answer=choices.index(right),
        text=str(row["text"]),
        tags={"direction": str(row["direction"])},
        where=str(row["where"]),
    )


def values(document: Document, chosen: int, scores: tuple[float, ...]) -> Values:
    return {f"acc_{document.tags['direction']}": float(chosen == document.answer)}


TASK = Task(
    name="winobias",
    summary="whom a pronoun means, for and against the stereotype",
    kind="choice",
    test=(Rows(path="winobias", reader=sentences),),
    document=document,
    metrics=("acc", "acc_pro", "acc_anti", "stereotype_gap"),
    extra=values,
)
