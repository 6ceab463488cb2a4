"""When a rank counts as hanging, and which of several is the one that the others wait for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# A step may take so many times the longest pause so far, and the first ones so many times the limit.
SLOW = 5.0
FIRST_MOVES = 3
# Frames of a thread that waits for other ranks: exchanges, and the backward pass they are part of.
WAITING = ("/torch/distributed/", "/torch/autograd/", "/accelerate/", "/deepspeed/comm/")


@dataclass
class Seen:
    """What was heard of one rank, by this machine's clock: when it last told anything, and last moved."""

    heard_at: float
    moved_at: float
    count: int = -1
    place: str = "starting"
    guarded: bool = False
    moves: int = 0
    longest: float = 0.0

    @classmethod
    def start(cls, now: float) -> Seen:
        """Nothing was heard yet."""
        return cls(now, now)

    def hear(self, told: Mapping[str, Any], now: float) -> None:
        """The rank has told how far it is."""
        self.heard_at = now
        if told["count"] != self.count:
            if self.guarded and self.count >= 0:
                self.moves += 1
                self.longest = max(self.longest, now - self.moved_at)
            self.moved_at = now
        self.count, self.place, self.guarded = told["count"], told["place"], told["guarded"]

    def quiet(self, now: float, limit: float, *, stopped: bool) -> bool:
        """Whether it shows no sign of life; outside of training a call may hold the interpreter longer."""
        allowed = limit if self.guarded or stopped else SLOW * limit
        return now - self.heard_at > allowed

    def stuck(self, now: float, limit: float) -> bool:
        """Whether training doesn't move, for longer than it ever took."""
        allowed = max(limit, SLOW * (self.longest if self.moves >= FIRST_MOVES else limit))
        return self.guarded and now - self.moved_at > allowed


@dataclass(frozen=True)
class Shown:
    """What a rank's watchdog publishes; `quiet` and `still` are seconds, `frame` is where it was found."""

    rank: int
    host: str
    pid: int
    number: int
    count: int
    place: str
    guarded: bool
    quiet: float
    still: float
    frame: str

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Shown:
        """From what `to_json` gave.

        Raises:
            ValueError: it is cut short.
            TypeError: it is something else.
        """
        return cls(**json.loads(text))


def waiting(frame: str) -> bool:
    """Whether code at `frame` waits for other ranks."""
    return any(part in frame for part in WAITING)


def reason_for(
    own: Shown, others: Sequence[Shown], news: Collection[int], limit: float
) -> tuple[Shown, float, str] | None:
    """Who keeps a stuck rank waiting, for how many seconds, and why it is the one.

    Args:
        own: The rank that is stuck.
        others: What the other ranks' watchdogs published last.
        news: The ranks among them that published anything while this one was looked at.
        limit: Seconds without a sign of life that are too many.

    Returns:
        `None` while another rank has a good reason, such as a checkpoint that it writes.
    """
    for one in others:
        if one.rank not in news:
            return one, own.still, f"no news from it; its machine {one.host} or its network is gone"
    for one in others:
        if one.quiet > limit:
            return one, one.quiet, "no sign of life"
    every = [own, *others]
    last = min(one.count for one in every)
    behind = [one for one in every if one.count == last]
    if any(not one.guarded for one in behind):
        return None
    if len(behind) == len(every):
        behind = [one for one in every if not waiting(one.frame)] or every
    named = behind[0]
    if len(every) == 1:
        return named, named.still, "it does not move"
    if len(behind) == len(every):
        return named, named.still, "all ranks wait in one exchange that does not end"
    return named, named.still, "the other ranks wait for it"
