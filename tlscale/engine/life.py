"""What a whole process hears and shows while it works: requests to stop, and signs of life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tlscale.engine.signals import Stops
from tlscale.runs.pulse import Pulse


@dataclass(frozen=True)
class Life:
    """One for each process; without arguments, one that hears and tells nothing.

    `attempt` is the name of the try that this process belongs to, on a cluster; `guard` is called before
    anything that lasts is written, and ends the process when another try has begun.
    """

    stops: Stops = field(default_factory=Stops)
    pulse: Pulse = field(default_factory=Pulse)
    attempt: str | None = None
    guard: Callable[[], None] = field(default=lambda: None)
