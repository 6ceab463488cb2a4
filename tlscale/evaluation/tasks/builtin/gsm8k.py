"""GSM8K: grade-school mathematics, the number at the end of a worked solution (Cobbe et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.task import Document, Rows, Task

NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")
MARKED = re.compile(r"####\s*\$?(-?[0-9][0-9,]*(?:\.[0-9]+)?)")


def document(row: Mapping[str, Any]) -> Document:
    question, solution = str(row["question"]), str(row["answer"])
    return Document(
        query=f"Question: {question}\nAnswer:", answer=final(solution), shown=solution, text=question
    )


def final(solution: str) -> str:
    """The number after `####`, else the last one; without thousands' commas."""
    marked = MARKED.search(solution)
    numbers = [marked[1]] if marked else NUMBER.findall(solution)
    return str(numbers[-1]).replace(",", "").rstrip(".") if numbers else ""


HUB = "openai/gsm8k"
TASK = Task(
    name="gsm8k",
    summary="grade-school mathematics, the number must be exact",
    kind="generation",
    test=(Rows(path="gsm8k/test.jsonl"), Rows(hub=HUB, name="main", split="test")),
    train=(Rows(path="gsm8k/train.jsonl"), Rows(hub=HUB, name="main", split="train")),
    document=document,
    metrics=("exact_match",),
    stop=("Question:", "\n\n"),
    max_new_tokens=256,
    extract=final,
)
