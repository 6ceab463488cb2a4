"""Which examples make which optimizer step: a pure function, the same on every rank."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# Far more than a step, so that lengths are alike; far less than an epoch, so that batches still vary.
STEPS_SORTED_TOGETHER = 50

Lengths = Sequence[int] | Mapping[int, int]
"""Tokens by index of example."""


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
    grouped: bool = False,
    paced: Callable[[list[int]], list[int]] | None = None,
) -> list[list[list[int]]]:
    """The steps of one epoch for `rank`, each `accumulation` micro-batches of example indices.

    Over all ranks every example comes exactly once. Step s holds the same examples for every way to
    factor micro x accumulation x world, and every rank has as many steps and micro-batches. All steps
    but the last are full; the last is spread evenly, so its micro-batches may be shorter, or empty.

    With `lengths`, examples that pass together on all ranks are about equally long, ranks have about as
    many tokens, and the step with the longest example is the first of all, so that memory runs out there
    or nowhere. If `grouped`, whole steps are of examples about equally long, in random order. With `paced`,
    which rearranges the epoch's examples, the longest come when they come.
    """
    assert 0 <= rank < world, f"rank {rank} of {world}"
    order = list(range(n_examples))
    generator = random.Random(f"epoch {epoch} of seed {seed}")
    generator.shuffle(order)
    total = micro * accumulation * world
    if lengths is not None and grouped:
        order = _grouped(order, lengths, total, generator)
    order = order if paced is None else paced(order)
    steps = [order[start : start + total] for start in range(0, n_examples, total)]
    if lengths is not None:
        steps = [sorted(rows, key=lambda index: -lengths[index]) for rows in steps]
        if epoch == 0 and paced is None:
            steps = _longest_first(steps, lengths)
    sizes = [1] * n_examples if lengths is None else lengths
    return [_shared_out(rows, sizes, accumulation, world)[rank] for rows in steps]


def streamed(
    blocks: Iterable[tuple[int, Sequence[int]]],
    *,
    micro: int,
    accumulation: int,
    world: int,
    rank: int,
    seed: int,
    epoch: int,
    grouped: bool = False,
) -> Iterator[list[list[int]]]:
    """As `batches`, of examples that come in blocks, each shuffled by itself.

    `blocks` has for each the index of its first example and the lengths of all. Steps run on from one
    block to the next; the last of the epoch may be short. In the first block of all, the step with the
    longest example comes first.
    """
    total = micro * accumulation * world
    sizes: dict[int, int] = {}
    waiting: list[int] = []
    for first, lengths in blocks:
        generator = random.Random(f"block {first} of epoch {epoch} of seed {seed}")
        order = list(range(len(lengths)))
        generator.shuffle(order)
        if grouped:
            order = _grouped(order, lengths, total, generator)
        sizes |= {first + at: length for at, length in enumerate(lengths)}
        waiting += [first + at for at in order]
        steps = [waiting[at : at + total] for at in range(0, len(waiting) - total + 1, total)]
        waiting = waiting[len(steps) * total :]
        yield from _in_turn(steps, sizes, accumulation, world, rank, longest_first=not first and not epoch)
        sizes = {at: sizes[at] for at in waiting}
    if waiting:
        yield from _in_turn([waiting], sizes, accumulation, world, rank, longest_first=False)


def _in_turn(
    steps: list[list[int]],
    sizes: Mapping[int, int],
    accumulation: int,
    world: int,
    rank: int,
    *,
    longest_first: bool,
) -> Iterator[list[list[int]]]:
    steps = [sorted(rows, key=lambda index: -sizes[index]) for rows in steps]
    if longest_first and steps:
        steps = _longest_first(steps, sizes)
    for rows in steps:
        yield _shared_out(rows, sizes, accumulation, world)[rank]


def _shared_out(rows: list[int], sizes: Lengths, accumulation: int, world: int) -> list[list[list[int]]]:
    """A step's rows, longest first, as micro-batches for each rank, none of them empty on all.

    The rows are cut into runs that pass together. Of every `world` rows of a run, the longest goes to the
    rank with the fewest tokens so far, the next to the next.
    """
    whole, rest = divmod(len(rows), accumulation * world)
    tokens = [0] * world
    shares: list[list[list[int]]] = [[] for _ in range(world)]
    start = 0
    while start < len(rows):
        extra = min(world, max(0, rest - world * len(shares[0])))
        run = rows[start : start + whole * world + extra]
        start += len(run)
        for share in shares:
            share.append([])
        for at in range(0, len(run), world):
            needy = sorted(range(world), key=lambda rank: tokens[rank])
            for rank, row in zip(needy, run[at : at + world], strict=False):
                shares[rank][-1].append(row)
                tokens[rank] += sizes[row]
    return shares


def _longest_first(steps: list[list[int]], lengths: Lengths) -> list[list[int]]:
    """`steps` with the one that holds the longest example exchanged with the first, if both are full."""

    def size(at: int) -> tuple[int, int]:
        return lengths[steps[at][0]], sum(lengths[index] for index in steps[at])

    full = [at for at, rows in enumerate(steps) if len(rows) == len(steps[0])]
    if full:
        most = max(full, key=size)
        steps[0], steps[most] = steps[most], steps[0]
    return steps


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
