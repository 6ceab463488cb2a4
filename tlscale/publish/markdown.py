"""The few pieces of Markdown that a card is made of; text from data can't become markup or steer a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

SPECIAL = re.compile(r"([\\`*_\[\]|~#!$])")
DANGEROUS = re.compile(r"[^ -~]|[`|<>&\\\\]")
LONGEST = 300


def plain(value: object) -> str:
    """Any text as one line of plain Markdown."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", text)


def code(value: object) -> str:
    """A name in code type.

    Backticks hold only what has nothing in it that could end them, or the cell of a table around them.
    """
    text = " ".join(str(value).split())[:LONGEST]
    if not text:
        return ""
    return f"<code>{plain(text)}</code>" if DANGEROUS.search(text) else f"`{text}`"


def block(text: str, language: str) -> str:
    """A fenced block that its content can't close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines)


def bullets(items: Iterable[str]) -> str:
    """A list of Markdown lines."""
    return "\n".join(f"- {item}" for item in items)


def number(value: Any, digits: int = 4, *, signed: bool = False) -> str:
    """A number for a table, `-` where there is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "-"
    return f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"


def count(value: Any) -> str:
    """A whole number with grouped thousands."""
    return f"{value:,.0f}" if isinstance(value, (int, float)) else "-"
