"""A drawing of points in a plane, such as target against retention, with the best of them joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlscale.report.figures import clipped
from tlscale.report.svg import Scale, beside, dot, figure, label, line, path, tick_digits, ticks
from tlscale.report.words import number

TOP = 12.0
BELOW = 50.0


@dataclass(frozen=True)
class Spot:
    """One point; `joined` if it is on the line, `named` text is written beside it."""

    x: float
    y: float
    style: str
    joined: bool = False
    name: str = ""


def scatter(
    name: str,
    title: str,
    about: str,
    spots: Sequence[Spot],
    *,
    x_axis: str,
    y_axis: str,
    height: float = 300,
) -> str:
    """Points on common axes; the axes' texts say which way is better."""
    across, up = _scale([spot.x for spot in spots]), _scale([spot.y for spot in spots])
    plot = height - TOP - BELOW
    body = [label(0, 4, y_axis, "tick", anchor="start")]
    rows = ticks(up.low, up.high, 4)
    for tick in rows:
        y = TOP + (1 - up(tick) / 100) * plot
        body += [line(0, y, 100, y, "grid"), beside(y + 4, number(tick, tick_digits(rows)), "tick")]
    columns = ticks(across.low, across.high, 4)
    for tick in columns:
        body.append(label(across(tick), height - 26, number(tick, tick_digits(columns)), "tick"))
    body.append(label(100, height - 6, x_axis, "tick", anchor="end"))
    drawn = sorted((across(spot.x), up(spot.y)) for spot in spots if spot.joined)
    if len(drawn) > 1:
        body.append(path([(x / 100, y / 100) for x, y in drawn], TOP, plot, "curve rate"))
    for spot in spots:
        x, y = across(spot.x), TOP + (1 - up(spot.y) / 100) * plot
        body.append(dot(x, y, 5 if spot.joined else 4, f"point {spot.style}"))
        if spot.name:
            body.append(label(x, y - 9, clipped(spot.name, ""), "tick"))
    return figure(name, title, about, height, body, kind="curves")


def _scale(values: Sequence[float]) -> Scale:
    room = 0.08 * (max(values) - min(values)) or abs(max(values)) * 0.1 or 1.0
    return Scale(min(values) - room, max(values) + room)
