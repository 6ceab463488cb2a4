"""What may become of an earlier stage's adapter: what a recipe can ask for, and what a plan decides."""

from __future__ import annotations

from typing import Literal

AskedCarry = Literal["auto", "keep", "merge", "fresh"]
Carry = Literal["none", "keep", "merge", "fresh"]
