"""Examples that come in blocks: several parts as one sequence, and a stream whose end is not known yet."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

from tlscale.data.types import Example, LazyExamples, lengths

KEPT_BLOCKS = 4  # of a stream, open at a time: a step may reach into the next one


class Joined(LazyExamples):
    """The examples of several parts, one part after the other."""

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def lengths(self) -> list[int]:
        """The tokens of each example."""
        return [length for part in self._parts for length in lengths(part)]

    def at(self, number: int) -> Example:
        part = bisect_right(self._ends, number)
        return self._parts[part][number - (self._ends[part - 1] if part else 0)]


class Arriving:
    """A stream of examples, numbered from 0, in blocks.

    `block(k)` waits for block k, and is `None` past the end. Only a few blocks are open at a time. A block
    is always the same, so that a stream can be gone through again from any place. `close` ends what makes
    them.
    """

    def __init__(
        self, block: Callable[[int], Sequence[Example] | None], close: Callable[[], None] = lambda: None
    ) -> None:
        self.close = close
        self._block = lru_cache(maxsize=KEPT_BLOCKS)(block)
        self._starts = [0]  # of the blocks that were seen, and after them that of the next

    def mapped(self, change: Callable[[Sequence[Example]], Sequence[Example]]) -> Arriving:
        """The stream with every block changed."""

        def changed(number: int) -> Sequence[Example] | None:
            found = self._block(number)
            return None if found is None else change(found)

        return Arriving(changed, self.close)

    def first(self) -> Sequence[Example]:
        """The first block; empty where there is none."""
        return self._reach(0) or ()

    def __getitem__(self, index: int) -> Example:
        while index >= self._starts[-1]:
            if self._reach(len(self._starts) - 1) is None:
                raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        found = self._block(number)
        assert found is not None
        return found[index - self._starts[number]]

    def passed(self, *, seed: int, epoch: int) -> Iterator[tuple[int, list[int]]]:
        """The blocks of one epoch: the number of the first example, and the tokens of each.

        They come in order in epoch 0; later, when all are there, in an order by `seed` and `epoch`.
        """
        if not epoch:
            number = 0
            while (found := self._reach(number)) is not None:
                yield self._starts[number], lengths(found)
                number += 1
            return
        order = list(range(len(self._starts) - 1))
        random.Random(f"blocks of epoch {epoch} of seed {seed}").shuffle(order)
        for number in order:
            found = self._block(number)
            assert found is not None
            yield self._starts[number], lengths(found)

    def _reach(self, number: int) -> Sequence[Example] | None:
        """Block `number`, all before it having been seen."""
        found = self._block(number)
        if found is not None and number == len(self._starts) - 1:
            self._starts.append(self._starts[-1] + len(found))
        return found


Examples = Sequence[Example] | Arriving
