"""How far scoring is, and a line of it for a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

EVERY = 0.5  # seconds between two lines
WIDTH = 24
SURE = 0.02  # the share of the work after which the remaining time is told


@dataclass(frozen=True)
class Progress:
    """How far this process is: work computed of all that it will compute, and requests answered of all.

    The unit of work is tokens through the model for likelihoods, where the total is known to the token, and
    finished texts for generation.
    """

    tokens: int
    of_tokens: int
    requests: int
    of_requests: int

    def remaining(self, seconds: float) -> float | None:
        """Seconds still to go when this much took `seconds`; None while too little is known."""
        if not self.of_tokens or self.tokens < SURE * self.of_tokens:
            return None
        return seconds * (self.of_tokens - self.tokens) / self.tokens

    def line(self, seconds: float) -> str:
        """Bar, share, requests, elapsed and remaining time."""
        share = self.tokens / self.of_tokens if self.of_tokens else 1.0
        full = round(WIDTH * share)
        left = self.remaining(seconds)
        told = "" if left is None else f"   {clock(left)} left"
        bar = "━" * full + " " * (WIDTH - full)
        return f"{bar} {share:4.0%}  {self.requests:,}/{self.of_requests:,}  {clock(seconds)}{told}"


def silent(_: object) -> None:
    """Tells nobody."""


def clock(seconds: float) -> str:
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Bar:
    """Draws progress over itself on a terminal, at most twice a second; elsewhere nothing."""

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream or sys.stderr, now
        self._started: float | None = None
        self._drawn = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Takes the state after a pass; the first one of a new piece of work starts its clock."""
        now = self._now()
        if self._started is None:
            self._started = now
        done = progress.tokens >= progress.of_tokens
        if self._stream.isatty() and (done or now - self._drawn >= EVERY):
            self._drawn = now
            end = "\r" if not done else "\r\x1b[K"
            self._stream.write(f"\r\x1b[K{progress.line(now - self._started)}{end}")
            self._stream.flush()
        if done:
            self._started = None
