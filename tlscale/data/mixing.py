"""Which rows an epoch draws when tasks are mixed by temperature: pure, the same on every rank."""

from __future__ import annotations

import random
from collections.abc import Sequence


def drawn(groups: Sequence[int], *, temperature: float, seed: int, epoch: int) -> list[int]:
    """Indices of the rows of one epoch, as many as there are; `groups` has the task of each row.

    A task with n rows is drawn in proportion to n^(1/temperature) (Raffel et al. 2020, arXiv:1910.10683,
    section 3.5.2). Its rows come in an endless series of shuffled passes, from which each epoch takes
    the next: none comes again before all have come.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    shares = quotas([len(members[group]) for group in sorted(members)], len(groups), temperature)
    return [
        index
        for share, group in zip(shares, sorted(members), strict=True)
        for index in _series(members[group], epoch * share, share, f"task {group} of seed {seed}")
    ]


def _series(rows: Sequence[int], start: int, count: int, name: str) -> list[int]:
    """`count` of an endless series of shuffled passes over `rows`, from `start` on."""
    first, last = start // len(rows), (start + count) // len(rows)
    series: list[int] = []
    for around in range(first, last + 1):
        order = list(rows)
        random.Random(f"pass {around} of {name}").shuffle(order)
        series += order
    begin = start - first * len(rows)
    return series[begin : begin + count]


def quotas(counts: Sequence[int], total: int, temperature: float) -> list[int]:
    """`total` draws shared out in proportion to counts^(1/temperature), by largest remainders."""
    weights = [count ** (1 / temperature) for count in counts]
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    left = sorted(range(len(counts)), key=lambda i: shares[i] - exact[i])
    for i in left[: total - sum(shares)]:
        shares[i] += 1
    return shares
