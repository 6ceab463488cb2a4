"""Which examples make which optimizer step: a pure function, the same on every rank."""

from __future__ import annotations

import random


def batches(
    n_examples: int, *, micro: int, accumulation: int, world: int, rank: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """The steps of one epoch for `rank`, each `accumulation` micro-batches of example indices.

    Over all ranks every example comes exactly once. Step s holds the same examples for every way to
    factor micro x accumulation x world, and every rank has as many steps and micro-batches. All steps
    but the last are full; the last is spread evenly, so its micro-batches may be shorter, or empty.
    """
    assert 0 <= rank < world, f"rank {rank} of {world}"
    order = list(range(n_examples))
    random.Random(f"epoch {epoch} of seed {seed}").shuffle(order)
    parts = accumulation * world
    return [
        [order[start : start + micro * parts][i * world + rank :: parts] for i in range(accumulation)]
        for start in range(0, n_examples, micro * parts)
    ]
