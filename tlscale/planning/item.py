"""One line of the account of memory."""

from __future__ import annotations

from tlscale.recipe.base import Frozen


class MemoryItem(Frozen):
    """One line of the account of memory per device, in bytes; an estimate."""

    name: str
    bytes: int
    note: str = ""
