"""The report's drawings, as inline SVG: an interval against zero, scores, curves, changes by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlscale.report.svg import Scale, band, beside, dot, figure, label, line, path, tick_digits, ticks
from tlscale.report.words import MINUS, number

DRAWN_POINTS = 300
LOGARITHMIC = 50.0
SMALL = 1e-3
ROW = 46
NARROW = 42
Axis = tuple[Callable[[float], float], list[tuple[str, float]]]


@dataclass(frozen=True)
class Mark:
    """One row of a figure: a value with an interval where it has one, and what is printed of it."""

    name: str
    value: float
    low: float | None
    high: float | None
    text: str
    style: str = "other"


@dataclass(frozen=True)
class Dumbbell:
    """One row that goes from `before` to `after`, both shares."""

    name: str
    before: float
    after: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line over steps."""

    points: tuple[tuple[float, float], ...]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Part:
    """One piece of a whole."""

    name: str
    amount: int
    style: str


def interval(name: str, title: str, mark: Mark, *, margin: float) -> str:
    """An effect with its interval on a line through zero, over the differences that don't matter."""
    low, high = _ends(mark)
    left, right = min(0.0, low, -margin), max(0.0, high, margin)
    room = 0.1 * (right - left) or 1.0
    scale = Scale(left - room, right + room)
    shown = ticks(scale.low, scale.high, 4)
    digits = tick_digits(shown)
    body = [
        band(scale(-margin), 30, scale(margin), 40, "margin"),
        line(0, 50, 100, 50, "axis"),
        line(scale(0.0), 24, scale(0.0), 76, "zero"),
        band(scale(low), 44, scale(high), 12, f"range {mark.style}", radius=6),
        dot(scale(mark.value), 50, 4.5, "point"),
        label(scale(mark.value), 20, mark.text, "strong", edge=30),
        *(label(scale(t), 92, number(t, digits, signed=True), "tick") for t in shown),
        label(0, 112, "\N{LEFTWARDS ARROW} worse", "tick", anchor="start"),
        label(100, 112, "better \N{RIGHTWARDS ARROW}", "tick", anchor="end"),
    ]
    return figure(name, title, _about([mark]), 118, body, kind="interval")


def marks(
    name: str, title: str, rows: Sequence[Mark], *, bounds: Sequence[float] = (), zero: bool = False
) -> str:
    """One line for each row: its name, its value, and the interval around it, on a common scale.

    `bounds` are values that the scale takes in beside those of the rows; `zero` is marked if asked for.
    """
    ends = [*bounds, *(end for row in rows for end in _ends(row))]
    room = 0.04 * (max(ends) - min(ends)) or 0.01
    scale = Scale(min(ends) - room, max(ends) + room)
    body: list[str] = []
    for index, row in enumerate(rows):
        top = index * ROW
        body += [
            label(0, top + 18, clipped(row.name, row.text), "name", anchor="start"),
            label(100, top + 18, row.text, "value", anchor="end"),
            line(0, top + 32, 100, top + 32, "track"),
        ]
        if zero:
            body.append(line(scale(0.0), top + 26, scale(0.0), top + 38, "zero"))
        if row.low is not None and row.high is not None:
            body.append(band(scale(row.low), top + 28, scale(row.high), 8, f"range {row.style}", radius=4))
        body.append(dot(scale(row.value), top + 32, 5, f"point {row.style}"))
    bottom, shown = ROW * len(rows) + 14, ticks(scale.low, scale.high)
    body += [label(scale(t), bottom, number(t, tick_digits(shown)), "tick") for t in shown]
    return figure(name, title, _about(rows), bottom + 6, body, kind="marks")


def curves(name: str, title: str, about: str, lines: Sequence[Curve], *, height: float = 190) -> str:
    """Lines over steps on common axes; logarithmic where the highest value is far above the lowest."""
    xs = [x for curve in lines for x, _ in curve.points]
    ys = [y for curve in lines for _, y in curve.points if math.isfinite(y)] or [0.0, 1.0]
    across = Scale(min(xs), max(xs))
    up, rows = _decades(ys) if min(ys) > 0 and max(ys) > LOGARITHMIC * min(ys) else _linear(ys)
    top, plot = 10.0, height - 36
    body: list[str] = []
    for text, share in rows:
        y = top + (1 - share) * plot
        body += [line(0, y, 100, y, "grid"), beside(y + 4, text, "tick")]
    for tick in (t for t in ticks(across.low, across.high, 4) if t == int(t)):
        body.append(label(across(tick), height - 8, number(tick, 0), "tick"))
    for curve in lines:
        finite = [(x, y) for x, y in curve.points if math.isfinite(y)]
        drawn = [(across(x) / 100, up(y)) for x, y in thinned(finite, DRAWN_POINTS)]
        body.append(path(drawn, top, plot, f"curve {curve.style}"))
        if curve.dots:
            body += [dot(x * 100, top + (1 - y) * plot, 3, f"point {curve.style}") for x, y in drawn]
    return figure(name, title, about, height, body, kind="curves")


def _linear(ys: Sequence[float]) -> Axis:
    spread = max(ys) - min(ys) or abs(max(ys)) or 1.0
    bottom = 0.0 if 0 <= min(ys) < 0.4 * spread else min(ys) - 0.06 * spread
    up = Scale(bottom, max(ys) + 0.04 * spread, 0.0, 1.0)
    shown = ticks(up.low, up.high, 4)
    small = max(abs(up.low), abs(up.high)) < SMALL
    texts = [f"{t:.1e}" if small and t else number(t, tick_digits(shown)) for t in shown]
    return up, [(text.replace("-", MINUS), up(t)) for text, t in zip(texts, shown, strict=True)]


def _decades(ys: Sequence[float]) -> Axis:
    scale = Scale(math.log10(min(ys)) - 0.05, math.log10(max(ys)) + 0.05, 0.0, 1.0)
    powers = range(math.ceil(scale.low), math.floor(scale.high) + 1)
    return (lambda y: scale(math.log10(y))), [(f"{10.0**p:,g}", scale(p)) for p in powers]


def dumbbells(name: str, title: str, rows: Sequence[Dumbbell]) -> str:
    """Shares before and after, one line a row from 0 to 100 %."""
    scale = Scale(0.0, 1.0, 1.0, 99.0)
    body: list[str] = []
    for index, row in enumerate(rows):
        top, style = index * ROW, "good" if row.after > row.before else "bad"
        ends = sorted((scale(row.before), scale(row.after)))
        body += [
            label(0, top + 18, clipped(row.name, row.text), "name", anchor="start"),
            label(100, top + 18, row.text, "value", anchor="end"),
            line(0, top + 32, 100, top + 32, "track"),
            band(ends[0], top + 30.5, ends[1], 3, f"range {style}"),
            dot(scale(row.before), top + 32, 4.5, "point before"),
            dot(scale(row.after), top + 32, 5, f"point {style}"),
        ]
    about = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return figure(name, title, about, ROW * len(rows) + 2, body, kind="dumbbells")


def parts(name: str, title: str, pieces: Sequence[Part]) -> str:
    """A whole and its pieces, as one bar; the pieces are named in its text alternative and beside it."""
    total = sum(piece.amount for piece in pieces) or 1
    body, left = [], 0.0
    for piece in pieces:
        width = 100 * piece.amount / total
        if piece.amount:
            body.append(band(left, 2, left + max(width - 0.3, 0.1), 26, f"part {piece.style}"))
        left += width
    about = "; ".join(f"{piece.name}: {piece.amount:,}" for piece in pieces)
    return figure(name, title, about, 30, body, kind="parts")


def thinned(points: Sequence[tuple[float, float]], most: int) -> tuple[tuple[float, float], ...]:
    """At most about `most` points that keep the lowest and highest of every stretch."""
    if len(points) <= most:
        return tuple(points)
    kept = {0, len(points) - 1}
    buckets = most // 2
    for bucket in range(buckets):
        inside = range(bucket * len(points) // buckets, (bucket + 1) * len(points) // buckets)
        kept.add(min(inside, key=lambda i: points[i][1]))
        kept.add(max(inside, key=lambda i: points[i][1]))
    return tuple(points[i] for i in sorted(kept))


def clipped(text: str, beside: str) -> str:
    """A name short enough to stand on one line with `beside` in a narrow figure."""
    most = max(8, NARROW - len(beside))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def _ends(mark: Mark) -> tuple[float, float]:
    low = mark.value if mark.low is None else mark.low
    return low, mark.value if mark.high is None else mark.high


def _about(rows: Sequence[Mark]) -> str:
    return "; ".join(f"{row.name}: {row.text}" for row in rows)
