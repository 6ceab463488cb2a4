"""Many texts generated at once on one buffer of keys and values, where common beginnings lie once.

Every token in the buffer has a slot; a sequence sees the slots of its own tokens, and those of the prompt
before it as far as both begin alike. A finished sequence gives its slots back and the next prompt takes
its place in the same pass in which the others go on (continuous batching, Yu et al. 2022, with the
sharing of RadixAttention, arXiv:2312.07104). All tokens of a pass are one row under one mask.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tlscale.evaluation.scoring.encode import Ids
from tlscale.evaluation.scoring.forward import Forward
from tlscale.evaluation.scoring.schedule import SHORTEST_PUSH


@dataclass
class Running:
    """A text on its way: all its tokens, their slots, and how many of them have been computed."""

    at: int
    tokens: list[int]
    prompt: int
    limit: int
    slots: list[int]
    computed: int

    @property
    def made(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[self.prompt :]


class Arena:
    """The slots of one buffer, and the texts that are on it."""

    def __init__(self, forward: Forward, capacity: int, device: torch.device) -> None:
        self._forward, self._device = forward, device
        self._free = list(range(capacity))
        self._users = np.zeros(capacity, np.int64)
        self._position = torch.zeros(capacity, dtype=torch.long, device=device)
        # The last prompt's slots are held until the next prompt has looked at them.
        self._last: Ids = np.zeros(0, np.int32)
        self._kept: list[int] = []
        self.active: list[Running] = []

    def admit(self, prompt: Ids, at: int, limit: int) -> bool:
        """Takes a prompt in, if there is room for it and for all that it and the others may still grow."""
        shared = self._shared(prompt)
        growth = sum(running.limit - len(running.made) for running in self.active)
        if len(self._free) < len(prompt) - shared + limit + growth:
            return False
        slots = self._kept[:shared] + [heapq.heappop(self._free) for _ in range(len(prompt) - shared)]
        self._hold(slots)
        self._hold(slots)
        self._release(self._kept)
        self._last, self._kept = prompt, slots
        self.active.append(Running(at, prompt.tolist(), len(prompt), limit, list(slots), shared))
        return True

    def forget(self) -> None:
        """Lets go of the last prompt, so that the next can have all of the buffer."""
        self._release(self._kept)
        self._last, self._kept = np.zeros(0, np.int32), []

    def _shared(self, prompt: Ids) -> int:
        """How many tokens of the last prompt can be used; a prompt's last token is always computed anew."""
        short = min(len(self._last), len(prompt) - 1)
        differ = np.flatnonzero(self._last[:short] != prompt[:short])
        common = int(differ[0]) if len(differ) else short
        return common if common >= SHORTEST_PUSH else 0

    def _hold(self, slots: Sequence[int]) -> None:
        self._users[slots] += 1

    def _release(self, slots: Sequence[int]) -> None:
        self._users[slots] -= 1
        for slot in slots:
            if not self._users[slot]:
                heapq.heappush(self._free, slot)

    def step(self, budget: int) -> list[tuple[Running, Tensor]]:
        """One pass over up to `budget` waiting tokens; logits [vocabulary] of each text that is up to date.

        A longer prompt takes several passes. The caller appends the next token to `tokens`, or drops it.
        """
        parts = []
        for running in self.active:
            while len(running.slots) < len(running.tokens):
                running.slots.append(heapq.heappop(self._free))
                self._hold(running.slots[-1:])
            stop = min(len(running.tokens), running.computed + budget)
            if stop == running.computed:
                break
            parts.append((running, running.computed, stop))
            budget -= stop - running.computed
        logits = self._pass(parts)
        for running, _, stop in parts:
            running.computed = stop
        return [
            (running, row)
            for (running, _, stop), row in zip(parts, logits, strict=True)
            if stop == len(running.tokens)
        ]

    def _pass(self, parts: Sequence[tuple[Running, int, int]]) -> Tensor:
        """Logits [parts, vocabulary] after the last of tokens [start, stop) of each text."""
        ids = torch.tensor(
            [i for r, start, stop in parts for i in r.tokens[start:stop]], device=self._device
        )
        slots = torch.tensor(
            [s for r, start, stop in parts for s in r.slots[start:stop]], device=self._device
        )
        spans = [np.arange(start, stop) for _, start, stop in parts]
        positions = torch.from_numpy(np.concatenate(spans)).to(self._device)
        self._position[slots] = positions
        seen = 1 + max(max(running.slots[:stop]) for running, _, stop in parts)
        sees = np.zeros((len(ids), seen), np.bool_)
        row = 0
        for running, start, stop in parts:
            sees[row : row + stop - start, running.slots[:start]] = True
            sees[row : row + stop - start, running.slots[start:stop]] = np.tri(stop - start, dtype=np.bool_)
            row += stop - start
        ends = torch.from_numpy(np.cumsum([len(span) for span in spans]) - 1).to(self._device)
        mask = self._forward.mask(torch.from_numpy(sees).to(self._device), self._position[:seen], positions)
        return self._forward.logits(ids, positions, mask, ends, self._forward.stack.on(slots, seen))

    def drop(self, running: Running) -> None:
        """Takes a text off the buffer."""
        self.active.remove(running)
        self._release(running.slots)
