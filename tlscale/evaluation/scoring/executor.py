"""What scoring asks of an architecture: passes with their costs, and each pass's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """For each question [q]: its path, its target's log-probability, and whether that is the likeliest."""

    owners: Ints
    logprobs: Floats
    greedy: Bools

    def per_path(self) -> list[tuple[int, float, bool, int]]:
        """(path, summed log-probability, all greedy, tokens) of every path with questions here."""
        found = []
        for owner in np.unique(self.owners).tolist():
            mine = self.owners == owner
            found.append(
                (owner, float(self.logprobs[mine].sum()), bool(self.greedy[mine].all()), int(mine.sum()))
            )
        return found


NOTHING = Answered(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_))


def joined(parts: Sequence[Answered]) -> Answered:
    """The answers of several passes as one."""
    return Answered(
        np.concatenate([NOTHING.owners, *(p.owners for p in parts)]),
        np.concatenate([NOTHING.logprobs, *(p.logprobs for p in parts)]),
        np.concatenate([NOTHING.greedy, *(p.greedy for p in parts)]),
    )


class Executor(Protocol):
    """The passes that answer a set of paths on one model, the same on every rank.

    `costs` are the tokens of each pass; `needed` gives the passes that must run, in order, for the wanted
    ones to be answered; `run` answers one.
    """

    @property
    def costs(self) -> Sequence[int]: ...

    def needed(self, wanted: set[int]) -> list[int]: ...

    def run(self, index: int) -> Answered: ...
