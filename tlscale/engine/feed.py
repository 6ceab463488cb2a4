"""Which examples come in which step, of rows that lie ready and of a stream."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tlscale.data.arriving import Arriving, Examples
from tlscale.data.curriculum import paced
from tlscale.data.loader import batches, streamed
from tlscale.data.marked import Marked
from tlscale.data.mixing import drawn
from tlscale.data.types import Example, lengths
from tlscale.engine.runtime import Runtime
from tlscale.errors import TlscaleError
from tlscale.models.taskheads import spans
from tlscale.planning.types import Batch, PlannedStage, Stage, Tasks

Step = tuple[int, list[list[int]]]
"""The epoch, from 0, and this rank's micro-batches, as indices of examples; the last may be empty."""


def known(examples: Examples) -> int | None:
    """How many examples there are; `None` of a stream."""
    return None if isinstance(examples, Arriving) else len(examples)


def count_steps(stage: Stage, batch: Batch, examples: Examples) -> int:
    """Optimizer steps of a stage.

    Raises:
        TlscaleError: there is nothing to train on.
    """
    if stage.budget.max_steps is not None and _any(examples):
        return stage.budget.max_steps
    there = known(examples)
    if not there:
        raise TlscaleError(f"stage {stage.name}: no training examples are left after preparation")
    return max(1, math.ceil(stage.budget.epochs * math.ceil(there / batch.total)))


def _any(examples: Examples) -> bool:
    try:
        return bool(examples[0])
    except IndexError:
        return False


def micro_batches(
    examples: Examples, planned: PlannedStage, runtime: Runtime, *, seed: int, steps: int, done: int
) -> Iterator[Step]:
    """What comes in every step from `done` to `steps`.

    A pure function of its arguments: where training stands is the number of its steps. Of a stream, what
    was done is gone through again, by the lengths of its examples alone.
    """
    step, epoch = 0, 0
    while step < steps:
        for micros in _epoch(examples, planned, runtime, seed=seed, epoch=epoch):
            if step >= done:
                yield epoch, micros
            step += 1
            if step == steps:
                return  # before more is read
        epoch += 1


def _epoch(
    examples: Examples, planned: PlannedStage, runtime: Runtime, *, seed: int, epoch: int
) -> Iterator[list[list[int]]]:
    batch = planned.batch
    asked: dict[str, Any] = {
        "micro": batch.micro, "accumulation": batch.accumulation, "world": runtime.world,
        "rank": runtime.rank, "seed": seed, "epoch": epoch, "grouped": planned.stage.group_by_length,
    }  # fmt: skip
    if isinstance(examples, Arriving):
        yield from streamed(examples.passed(seed=seed, epoch=epoch), **asked)
        return
    sizes, chosen = lengths(examples), _chosen(examples, planned.stage.tasks, seed=seed, epoch=epoch)
    taken = [sizes[index] for index in chosen] if any(sizes) else None
    pacing = _pacing(examples, planned, epoch)
    for micros in batches(len(chosen), lengths=taken, paced=pacing, **asked):
        yield [[chosen[index] for index in micro] for micro in micros]


def _pacing(
    examples: Sequence[Example], planned: PlannedStage, epoch: int
) -> Callable[[list[int]], list[int]] | None:
    """How an epoch goes from easy examples to hard ones, where it does."""
    asked = planned.stage.curriculum
    if asked is None or asked.start == 1.0 or epoch >= asked.epochs:
        return None
    assert isinstance(examples, Marked), "a curriculum's difficulties are reckoned before training"
    assert examples.difficulty is not None, "and so are these"
    return partial(paced, difficulty=examples.difficulty, asked=asked, total=planned.batch.total)


def _chosen(examples: Sequence[Example], tasks: Tasks | None, *, seed: int, epoch: int) -> Sequence[int]:
    """The examples of an epoch: each once, or drawn by the temperature of the tasks."""
    if tasks is None or tasks.temperature == 1.0:
        return range(len(examples))
    ends = [end for _, end in spans(tasks.sizes)]
    groups = [bisect_right(ends, example.label or 0) for example in examples]
    return drawn(groups, temperature=tasks.temperature, seed=seed, epoch=epoch)
