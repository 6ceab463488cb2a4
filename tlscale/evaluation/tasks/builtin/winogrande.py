"""WinoGrande: who is meant, by which reading makes the rest likelier (Sakaguchi et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.builtin.given import EXAMPLES, schema
from tlscale.evaluation.tasks.task import Document, Rows, Task


def hub_document(row: Mapping[str, Any]) -> Document:
    before, _, after = str(row["sentence"]).partition("_")
    contexts = (f"{before}{row['option1']}", f"{before}{row['option2']}")
    return Document(contexts=contexts, choices=(after.strip(),), answer=int(row["answer"]) - 1)


FILE = "lm_eval_local/language_understanding/winogrande.jsonl"
HUB, NAME = "allenai/winogrande", "winogrande_xl"
TASK = Task(
    name="winogrande",
    summary="which of two people or things is meant",
    kind="choice",
    test=(Rows(path=FILE), Rows(hub=HUB, name=NAME, split="validation", document=hub_document)),
    train=(
        Rows(path=FILE, span=EXAMPLES),
        Rows(hub=HUB, name=NAME, split="train", document=hub_document),
    ),
    document=schema,
    metrics=("acc",),
)
