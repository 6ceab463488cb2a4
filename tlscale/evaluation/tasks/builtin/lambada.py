"""LAMBADA: the last word of a passage (Paperno et al. 2016, arXiv:1606.06031), OpenAI's version.

`word_perplexity` is over those last words, which other reports call perplexity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES
from tlscale.evaluation.tasks.task import Document, Rows, Task


def document(row: Mapping[str, Any]) -> Document:
    return Document(query=str(row["context"]).rstrip(), answer=str(row["continuation"]).strip())


def hub_document(row: Mapping[str, Any]) -> Document:
    before, _, last = str(row["text"]).rpartition(" ")
    return Document(query=before, answer=last)


FILE, HUB = "lm_eval_local/language_understanding/lambada_openai.jsonl", "EleutherAI/lambada_openai"
TASK = Task(
    name="lambada",
    summary="the last word of a passage",
    kind="likelihood",
    test=(Rows(path=FILE), Rows(hub=HUB, name="default", split="test", document=hub_document)),
    train=(Rows(path=FILE, span=EXAMPLES),),
    document=document,
    metrics=("acc", "word_perplexity"),
)
