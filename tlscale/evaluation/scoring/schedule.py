"""Token paths -> passes through the model in which every shared prefix is computed once.

Sorted paths are a prefix tree in depth-first order. A part of the tree that fits the token budget is one
pass (`Pack`); what a larger part shares is a pass of its own (`Push`) whose keys and values stay on a stack
while the part's children are scored on top of them. So nothing is ever copied, and memory holds one way
from the root down, not the tree. This is the arrangement of RadixAttention (Zheng et al. 2024,
arXiv:2312.07104) walked depth first.

Pure functions on arrays: the same paths and budget give the same passes on every machine and rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tlscale.evaluation.scoring.encode import Ids

Counts = npt.NDArray[np.int64]
SHORTEST_PUSH = 24  # tokens: a shorter shared prefix costs less in each pass than a pass of its own


@dataclass(frozen=True, slots=True)
class Push:
    """Tokens [depth, upto) of path `member` join the stack; rows of `members` within them are scored."""

    depth: int
    upto: int
    members: tuple[int, ...]
    under: int | None

    @property
    def member(self) -> int:
        return self.members[0]


@dataclass(frozen=True, slots=True)
class Pack:
    """The rest of all `members` beyond `depth`, as one tree on top of the stack."""

    depth: int
    members: tuple[int, ...]
    under: int | None


Pass = Push | Pack


@dataclass(frozen=True)
class Sorted:
    """Paths in lexicographic order: `order[i]` is the i-th one's place among the originals.

    `shared[i]` counts the leading tokens that the i-th has in common with the one before it.
    """

    order: tuple[int, ...]
    lengths: Counts
    shared: Counts
    sums: Counts

    def cost(self, low: int, high: int, depth: int) -> int:
        """Tokens of the tree of paths [low, high) beyond their first `depth`, which all share."""
        return int(self.lengths[low] - depth + self.sums[high] - self.sums[low + 1])

    def common(self, low: int, high: int) -> int:
        """How many leading tokens the paths [low, high) share."""
        return int(self.lengths[low] if high - low == 1 else self.shared[low + 1 : high].min())


def arrange(paths: Sequence[Ids]) -> Sorted:
    """Sorts paths so that those with a common prefix are neighbours."""
    keys = [path.astype(">u4").tobytes() for path in paths]
    order = tuple(sorted(range(len(paths)), key=keys.__getitem__))
    lengths = np.asarray([len(paths[i]) for i in order], np.int64)
    shared = np.zeros(len(order), np.int64)
    for at, (a, b) in enumerate(pairwise(order), 1):
        shared[at] = _common(paths[a], paths[b])
    sums = np.concatenate([[0], np.cumsum(lengths - shared)])
    return Sorted(order, lengths, shared, sums)


def _common(a: Ids, b: Ids) -> int:
    short = min(len(a), len(b))
    differ = np.flatnonzero(a[:short] != b[:short])
    return int(differ[0]) if len(differ) else short


def schedule(tree: Sorted, budget: int) -> list[Pass]:
    """Passes in an order in which each finds its stack; members are places in the sorted order.

    Only a push may hold more than `budget` tokens (up to four times as many, without a mask).
    """
    return level(tree, [(0, len(tree.order))], 0, None, budget) if tree.order else []


def level(
    tree: Sorted, groups: list[tuple[int, int]], depth: int, under: int | None, budget: int
) -> list[Pass]:
    """Passes for `groups` of neighbours, each [low, high), above the `depth` tokens that they all share."""
    passes: list[Pass] = []
    _level(tree, groups, depth, under, budget, passes)
    return passes


def _level(
    tree: Sorted, groups: list[tuple[int, int]], depth: int, under: int | None, budget: int, out: list[Pass]
) -> None:
    small, large = _split(tree, groups, depth, budget)
    for members in _fill(tree, small, depth, budget):
        out.append(Pack(depth, members, under))
    for low, high, common in large:
        top = under
        for start in range(depth, common, 4 * budget):
            stop = min(common, start + 4 * budget)
            out.append(Push(start, stop, tuple(range(low, high)), top))
            top = len(out) - 1
        while low < high and tree.lengths[low] == common:
            low += 1
        if low < high:
            _level(tree, [(low, high)], common, top, budget, out)


def _split(
    tree: Sorted, groups: list[tuple[int, int]], depth: int, budget: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
    """Subtrees that fit one pass, and those whose shared prefix is to be pushed first."""
    small, large = [], []
    waiting = groups[::-1]
    while waiting:
        low, high = waiting.pop()
        if tree.cost(low, high, depth) <= budget:
            small.append((low, high))
            continue
        common = tree.common(low, high)
        if common - depth >= SHORTEST_PUSH or high - low == 1:
            large.append((low, high, common))
            continue
        cuts = [low, *(np.flatnonzero(tree.shared[low + 1 : high] == common) + low + 1).tolist(), high]
        waiting += list(pairwise(cuts))[::-1]
    return small, large


def _fill(tree: Sorted, units: list[tuple[int, int]], depth: int, budget: int) -> Iterator[tuple[int, ...]]:
    """Puts subtrees into passes one after another, as many as the budget takes."""
    members: list[int] = []
    used = 0
    for low, high in units:
        size = tree.cost(low, high, depth)
        if members and used + size > budget:
            yield tuple(members)
            members, used = [], 0
        members += range(low, high)
        used += size
    if members:
        yield tuple(members)


def tokens_of(tree: Sorted, step: Pass) -> int:
    """How many tokens a pass computes."""
    if isinstance(step, Push):
        return step.upto - step.depth
    total = 0
    before = None
    for member in step.members:
        neighbour = before is not None and member == before + 1
        start = max(step.depth, int(tree.shared[member])) if neighbour else step.depth
        total += int(tree.lengths[member]) - start
        before = member
    return total


def shares(costs: Sequence[int], world: int) -> list[range]:
    """Cuts a sequence of costs into `world` consecutive ranges of about equal sums."""
    ends = np.cumsum(np.asarray(costs, np.int64)) if costs else np.zeros(0, np.int64)
    total = int(ends[-1]) if len(ends) else 0
    marks = [int(np.searchsorted(ends, total * rank / world)) for rank in range(1, world)]
    bounds = [0, *marks, len(costs)]
    return [range(a, b) for a, b in pairwise(bounds)]


def with_ancestors(passes: Sequence[Pass], wanted: set[int]) -> list[int]:
    """The wanted passes and all pushes below them, in order."""
    found = set()
    for index in wanted:
        step: int | None = index
        while step is not None and step not in found:
            found.add(step)
            step = passes[step].under
    return sorted(found)
