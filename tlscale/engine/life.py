"""What a whole process hears and shows while it works: requests to stop, and signs of life."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlscale.engine.signals import Stops
from tlscale.runs.pulse import Pulse


@dataclass(frozen=True)
class Life:
    """One for each process; without arguments, one that hears and tells nothing."""

    stops: Stops = field(default_factory=Stops)
    pulse: Pulse = field(default_factory=Pulse)
