"""Which examples make which optimizer step: a pure function, the same on every rank."""

from __future__ import annotations

import random
from collections.abc import Sequence

# Far more than a step, so that lengths are alike; far less than an epoch, so that batches still vary.
STEPS_SORTED_TOGETHER = 50


def batches(
    n_examples: int,
    *,
    micro: int,
    accumulation: int,
    world: int,
    rank: int,
    seed: int,
    epoch: int,
    lengths: Sequence[int] | None = None,
) -> list[list[list[int]]]:
    """The steps of one epoch for `rank`, each `accumulation` micro-batches of example indices.

    Over all ranks every example comes exactly once. Step s holds the same examples for every way to
    factor micro x accumulation x world, and every rank has as many steps and micro-batches. All steps
    but the last are full; the last is spread evenly, so its micro-batches may be shorter, or empty.
    With `lengths`, the examples of a step are about equally long, so that little is padded, and the
    steps come in random order.
    """
    assert 0 <= rank < world, f"rank {rank} of {world}"
    order = list(range(n_examples))
    generator = random.Random(f"epoch {epoch} of seed {seed}")
    generator.shuffle(order)
    parts = accumulation * world
    total = micro * parts
    if lengths is not None:
        order = _grouped(order, lengths, total, generator)
    # as many micro-batches on every rank, and none that is empty on all
    return [
        [rows[i * world + rank :: parts] for i in range(accumulation) if i * world < len(rows)]
        for rows in (order[start : start + total] for start in range(0, n_examples, total))
    ]


def _grouped(order: list[int], lengths: Sequence[int], total: int, generator: random.Random) -> list[int]:
    """`order` with steps of `total` examples of like length; a short last step stays the last."""
    pool = total * STEPS_SORTED_TOGETHER
    steps = []
    for start in range(0, len(order), pool):
        like = sorted(order[start : start + pool], key=lambda index: lengths[index])
        steps += [like[at : at + total] for at in range(0, len(like), total)]
    short = [step for step in steps if len(step) < total]
    full = [step for step in steps if len(step) == total]
    generator.shuffle(full)
    return [index for step in [*full, *short] for index in step]
