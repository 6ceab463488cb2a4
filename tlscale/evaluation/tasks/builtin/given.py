"""Rows that carry a ready question: columns query, choices and gold, as in MosaicML's evaluation files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.task import Document

LETTERS = "ABCDEFGH"
# Of a file that is the whole public test set, the part that serves as examples when shots are asked for.
EXAMPLES = (0.0, 0.05)


def choice(row: Mapping[str, Any]) -> Document:
    """The question as it stands."""
    query = str(row["query"]).rstrip()
    return Document(query=query, choices=tuple(row["choices"]), answer=int(row["gold"]), text=query)


def answered(row: Mapping[str, Any]) -> Document:
    """The question with `Answer:` on a line of its own."""
    query = str(row["query"]).rstrip()
    prompt = f"{query}\nAnswer:"
    return Document(query=prompt, choices=tuple(row["choices"]), answer=int(row["gold"]), text=query)


def schema(row: Mapping[str, Any]) -> Document:
    """Two contexts that compete for one continuation (Trinh and Le 2018, arXiv:1806.02847)."""
    contexts = tuple(row["context_options"])
    return Document(contexts=contexts, choices=(str(row["continuation"]),), answer=int(row["gold"]))


def labelled(row: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Texts and right index of a Hub row with choices {label, text} and answerKey."""
    choices = row["choices"]
    return tuple(choices["text"]), list(choices["label"]).index(str(row["answerKey"]).strip())
