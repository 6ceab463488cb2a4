"""Winograd schema challenge, 273 items (Levesque et al. 2012)."""

from __future__ import annotations

from tlscale.evaluation.tasks.builtin.given import schema
from tlscale.evaluation.tasks.task import Rows, Task

FILE = "lm_eval_local/language_understanding/winograd_wsc.jsonl"
TASK = Task(
    name="wsc273",
    summary="who or what a pronoun means",
    kind="choice",
    test=(Rows(path=FILE),),
    train=(Rows(path=FILE, span=(0.0, 0.1)),),
    document=schema,
    metrics=("acc",),
)
