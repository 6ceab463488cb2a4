"""`tlscale predict`: answers to one input, a file or lines of stdin, in order, batch by batch."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

from tlscale.errors import UsageError
from tlscale.planning.inputs import input_column, input_role, split_mark
from tlscale.planning.types import Plan
from tlscale.recipe.base import Frozen
from tlscale.runs.layout import RunLayout
from tlscale.sources import Row, value
from tlscale.sources.inputs import read_inputs
from tlscale.worker import answers
from tlscale.worker.alone import alone
from tlscale.worker.answers import Answer, Asked

Answerer = Callable[[list[Asked]], list[Answer]]


class Request(Frozen):
    """What `tlscale predict` was asked for; with neither text nor file, lines of stdin.

    `lines` says whether a line of stdin is the input itself, or JSON of it.
    """

    text: str | None = None
    file: str | None = None
    column: str | None = None
    max_new_tokens: int | None = None
    lines: Literal["plain", "json"] = "plain"


def predict(plan: Plan, layout: RunLayout, as_json: bool, request: str = "{}") -> None:
    """Prints one answer for each input, as soon as its batch is done.

    Raises:
        UsageError: the run has no result, or an input can't be read; earlier answers were printed.
    """
    asked = Request.model_validate_json(request)
    inputs = _inputs(plan, asked)
    job = alone(plan, layout)
    answer = answers.answerer(job, asked.max_new_tokens or plan.recipe.evaluate.max_new_tokens)
    size = 1 if sys.stdin.isatty() else plan.recipe.train.per_device_eval_batch_size
    try:
        while batch := list(itertools.islice(inputs, size)):
            with torch.inference_mode(), job.runtime.accelerator.autocast():
                found = answer(batch)
            for one, made in zip(batch, found, strict=True):
                print(_line(one, made, as_json, alone=asked.text is not None), flush=True)
    except BrokenPipeError:
        # whoever read the answers has seen enough; nothing may be flushed to them on the way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _inputs(plan: Plan, asked: Request) -> Iterator[Asked]:
    """The inputs in order; a file is read whole before the model is loaded."""
    if asked.text is not None:
        return iter([_asked(plan, Row({"input": asked.text}, "the input"), "input", typed=True)])
    if asked.file is not None:
        rows, spec = read_inputs(asked.file, asked.column, input_column(plan))
        return (_asked(plan, row, spec, typed=False, file=asked.file) for row in rows)
    return _lines(plan, asked.lines)


def _lines(plan: Plan, form: Literal["plain", "json"]) -> Iterator[Asked]:
    for number, line in enumerate(sys.stdin, start=1):
        content = json.loads(line) if form == "json" else line.rstrip("\r\n")
        if content.strip():
            yield _asked(plan, Row({"input": content}, f"stdin:{number}"), "input", typed=True)


def _asked(plan: Plan, row: Row, spec: str, *, typed: bool, file: str | None = None) -> Asked:
    """One input; `typed` is one that a person gave as it stands, not a cell of a data file."""
    content: Any = value(row, spec)
    role = input_role(plan)
    if role not in ("image", "audio") and not (
        role == "messages" and not typed and isinstance(content, list)
    ):
        if not isinstance(content, str) or not content.strip():
            raise UsageError(f"{row.where}: the input is empty or no text")
        mark = split_mark(plan)
        if mark is not None and mark in content:
            content = content.partition(mark)[0] + mark
        if role == "messages":
            content = [{"role": "user", "content": content}]
    return Asked(row, content, typed, file)


def _line(asked: Asked, answer: Answer, as_json: bool, *, alone: bool) -> str:
    if as_json:
        return json.dumps({"where": asked.row.where, **answer}, ensure_ascii=False)
    if "completion" in answer:
        text: str = answer["completion"]
        # one answer a line, so that a line of output is a line of input
        return text if alone else text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    if "tasks" in answer:
        return "\t".join(f"{one['label']}\t{one['probability']:.4f}" for one in answer["tasks"].values())
    if "label" in answer:
        return f"{answer['label']}\t{answer['probability']:.4f}"
    return json.dumps(answer["embedding"])
