"""What doesn't go together with training rows that are read while training goes on.

A part of the table of clashes.
"""

from __future__ import annotations

from tlscale.planning.cases import Case, Clash
from tlscale.recipe.types import Source

KNOWN_TASKS = ("causal-lm", "masked-lm", "sentence-embedding")


def _streams(case: Case) -> bool:
    return case.recipe.data.train is not None and case.recipe.data.train.streaming


def _elsewhere(case: Case) -> bool:
    data = case.recipe.data
    others: list[Source | None] = [data.validation, data.test, data.retention, data.replay, data.unlabelled]
    others += [stage.data for stage in case.recipe.stages]
    return any(source is not None and source.streaming for source in others)


CLASHES: tuple[Clash, ...] = (
    Clash(
        "data",
        _elsewhere,
        "only data.train can be read while training goes on",
        "leave streaming out everywhere else",
    ),
    Clash(
        "train.max_steps",
        lambda c: _streams(c) and c.stage is not None and c.stage.budget.max_steps is None,
        "with data.train.streaming nobody knows how many rows there are, so epochs make no number of steps",
        "set train.max_steps",
    ),
    Clash(
        "data.train.streaming",
        lambda c: _streams(c) and c.recipe.model.task not in KNOWN_TASKS,
        "classes and the models to beat need all rows at the start",
        f"leave streaming out, or train one of {', '.join(KNOWN_TASKS)}",
    ),
    Clash(
        "data.test",
        lambda c: _streams(c) and c.recipe.data.test is None and c.recipe.data.test_split > 0,
        "nothing can be held out of training rows that are not there yet",
        "give data.test, or set data.test_split to 0",
    ),
    Clash(
        "data.validation_split",
        lambda c: _streams(c) and c.recipe.data.validation is None and c.recipe.data.validation_split > 0,
        "nothing can be held out of training rows that are not there yet",
        "give data.validation",
    ),
    Clash(
        "evaluate.contamination",
        lambda c: _streams(c) and bool(c.recipe.evaluate.contamination),
        "items are looked up in all training rows, and a stream never has them all",
        "leave it out",
    ),
)
