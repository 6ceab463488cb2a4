"""Several short examples in one row: less padding, the same tokens learned.

Best-fit decreasing: every example goes into the fullest row that still has room for it (Krell et al. 2021,
arXiv:2107.02027). Positions start again at every example, by which the model keeps them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from tlscale.data.types import Example, LazyExamples, lengths


def rows_of(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which items share a row of at most `size` tokens: indices, ascending in a row and by their first."""
    rows: list[list[int]] = []
    with_room: defaultdict[int, list[int]] = defaultdict(list)
    rooms = 0  # bit r is set where a row with room for r more tokens exists
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        fitting = rooms >> length
        if not fitting:
            room, row = size, len(rows)
            rows.append([])
        else:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        rows[row].append(index)
        left = max(0, room - length)
        if left:
            with_room[left].append(row)
            rooms |= 1 << left
    return sorted(sorted(row) for row in rows)


class Packed(LazyExamples):
    """Language examples joined to rows of at most `size` tokens; every token stays in exactly one row.

    A row is joined when it is asked for. Its `where` names all that share it, so that an error still
    names the rows of the data.
    """

    def __init__(self, examples: Sequence[Example], size: int) -> None:
        self._examples = examples
        self._lengths = lengths(examples)
        self._rows = rows_of(self._lengths, size)

    def __len__(self) -> int:
        return len(self._rows)

    def lengths(self) -> list[int]:
        """The tokens of each row."""
        return [sum(self._lengths[at] for at in row) for row in self._rows]

    def at(self, number: int) -> Example:
        return _joined([self._examples[at] for at in self._rows[number]])


def _joined(parts: Sequence[Example]) -> Example:
    return replace(
        parts[0],
        where=", ".join(part.where for part in parts),
        text="",
        reference="",
        tokens=[token for part in parts for token in part.tokens or ()],
        loss=[learned for part in parts for learned in part.loss or ()],
        segments=tuple(len(part.tokens or ()) for part in parts),
    )
