"""COPA: cause or effect, two choices (Roemmele et al. 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import choice
from tlscale.evaluation.tasks.task import Document, Rows, Task

CONNECTED = {"cause": "because", "effect": "therefore"}


def lowered(text: str) -> str:
    return text[0].lower() + text[1:]


def hub_document(row: Mapping[str, Any]) -> Document:
    query = f"{str(row['premise']).strip()[:-1]} {CONNECTED[str(row['question'])]}"
    choices = (lowered(str(row["choice1"])), lowered(str(row["choice2"])))
    answer = row["label"]
    gold = answer if isinstance(answer, int) else int(str(answer).removeprefix("choice")) - 1
    return Document(query=query, choices=choices, answer=gold, text=str(row["premise"]))


FILE, HUB = "lm_eval_local/commonsense_reasoning/copa.jsonl", "aps/super_glue"
TASK = Task(
    name="copa",
    summary="which of two is the cause or effect",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, name="copa", split="validation", document=hub_document)),
    train=(
        Rows(path=FILE, span=(0.0, 0.2)),
        Rows(hub=HUB, name="copa", split="train", document=hub_document),
    ),
    document=choice,
    metrics=("acc",),
    unconditional="",
)
