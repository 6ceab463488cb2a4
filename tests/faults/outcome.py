"""What a trial found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `wrong` in words, or empty.

    `lost` counts steps that were done again; `named` and `ended` are seconds from the fault until a hang
    was named, and until every process of the job was gone.
    """

    wrong: str = ""
    lost: int = 0
    named: float | None = None
    ended: float | None = None
