"""OpenBookQA: science facts put to use (Mihaylov et al. 2018, arXiv:1809.02789)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES, choice, labelled
from tlscale.evaluation.tasks.task import Document, Rows, Task


def hub_document(row: Mapping[str, Any]) -> Document:
    choices, gold = labelled(row)
    query = str(row["question_stem"])
    return Document(query=query, choices=choices, answer=gold, text=query)


FILE, HUB = "lm_eval_local/commonsense_reasoning/openbook_qa.jsonl", "allenai/openbookqa"
TASK = Task(
    name="openbookqa",
    summary="science facts put to use, four choices",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, name="main", split="test", document=hub_document)),
    train=(
        Rows(path=FILE, span=EXAMPLES),
        Rows(hub=HUB, name="main", split="train", document=hub_document),
    ),
    document=choice,
    metrics=("acc_norm", "acc"),
    unconditional="",
)
