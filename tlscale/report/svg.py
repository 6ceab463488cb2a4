"""Drawing primitives: SVG that keeps its text size at any width.

Horizontal positions are percentages and vertical ones pixels, without a viewBox, so that a figure
stretches while its letters don't. Colours are classes, for the style sheet to set in light and dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to the percentages `left`..`right`."""

    low: float
    high: float
    left: float = 0.0
    right: float = 100.0

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)


def ticks(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """Round numbers inside `low`..`high`, at most about `most` of them."""
    if not high > low:
        return (low,)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def tick_digits(marks: Sequence[float]) -> int:
    """Decimals that keep neighbouring ticks apart."""
    gaps = [abs(b - a) for a, b in pairwise(marks)]
    return max(0, -math.floor(math.log10(min(gaps)) + 1e-9)) if gaps else 2


def figure(name: str, title: str, about: str, height: float, body: Sequence[str], *, kind: str) -> str:
    """The whole drawing; `title` and `about` are read out in its place."""
    name = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return (
        f'<svg class="plot {kind}" role="img" aria-labelledby="{name}-title {name}-about" '
        f'width="100%" height="{height:g}">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(about)}</desc>'
        + "".join(body)
        + "</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.2f}%" y1="{y1:g}" x2="{x2:.2f}%" y2="{y2:g}"/>'


def band(x1: float, y: float, x2: float, height: float, style: str, *, radius: float = 0) -> str:
    """A rectangle from `x1` to `x2`; never so thin that it can't be seen."""
    rounded = f' rx="{radius:g}"' if radius else ""
    width = max(0.3, x2 - x1)
    return (
        f'<rect class="{style}" x="{x1:.2f}%" y="{y:g}" width="{width:.2f}%" height="{height:g}"{rounded}/>'
    )


def dot(x: float, y: float, radius: float, style: str) -> str:
    return f'<circle class="{style}" cx="{x:.2f}%" cy="{y:g}" r="{radius:g}"/>'


def label(x: float, y: float, text: str, style: str, *, anchor: str = "", edge: float = 14) -> str:
    """Text at `x`, turned inwards within `edge` of the ends unless `anchor` says how."""
    side = anchor or ("start" if x < edge else "end" if x > 100 - edge else "middle")
    return f'<text class="{style}" x="{x:.2f}%" y="{y:g}" text-anchor="{side}">{escape(text)}</text>'


def beside(y: float, text: str, style: str) -> str:
    """Text in the margin left of the drawing."""
    return f'<text class="{style}" x="-8" y="{y:g}" text-anchor="end">{escape(text)}</text>'


def path(points: Sequence[tuple[float, float]], top: float, height: float, style: str) -> str:
    """A line through `points` in units of 0..1, upwards, stretched over the full width."""
    if not points:
        return ""
    moves = " ".join(f"{x * 1000:.1f},{(1 - y) * 1000:.1f}" for x, y in points)
    return (
        f'<svg y="{top:g}" width="100%" height="{height:g}" viewBox="0 0 1000 1000" '
        f'preserveAspectRatio="none" overflow="visible" aria-hidden="true">'
        f'<polyline class="{style}" points="{moves}" vector-effect="non-scaling-stroke"/></svg>'
    )
