"""Rows that come beside the training rows: which of them belong to which step, without any state."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from tlscale.data.examples import Example
from tlscale.data.varying import Vary, same
from tlscale.planning.types import Batch


def streams_of(
    streams: Mapping[str, Sequence[Example]],
    batch: Batch,
    *,
    rank: int,
    seed: int,
    step: int,
    vary: Vary = same,
) -> dict[str, list[list[Example]]]:
    """This rank's rows of each of `streams` for `step`."""
    return {
        name: stream_micros(streams[name], batch, rank=rank, seed=seed, stream=name, step=step, vary=vary)
        for name in sorted(streams)
    }


def stream_micros(
    examples: Sequence[Example],
    batch: Batch,
    *,
    rank: int,
    seed: int,
    stream: str,
    step: int,
    vary: Vary = same,
) -> list[list[Example]]:
    """This rank's rows of `stream` for `step`, one list for each micro-batch, all of them full.

    The stream is an endless series of shuffled passes, the epochs of `vary`. A step takes the next rows
    of it, as many as of training rows, and the same ones for every way to factor micro x accumulation x
    world.
    """
    parts = batch.accumulation * batch.world
    first = step * batch.total
    size = len(examples)
    chosen = [
        (place // size, _at(size, place, seed, stream)) for place in range(first, first + batch.total)
    ]
    return [
        [vary(examples[i], around, i) for around, i in chosen[m * batch.world + rank :: parts]]
        for m in range(batch.accumulation)
    ]


def _at(count: int, place: int, seed: int, stream: str) -> int:
    return _order(count, place // count, seed, stream)[place % count]


@lru_cache(maxsize=8)
def _order(count: int, around: int, seed: int, stream: str) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"pass {around} of {stream} of seed {seed}").shuffle(order)
    return tuple(order)
