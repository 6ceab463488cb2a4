"""What a report is made of, before it is HTML or Markdown.

Every string here is plain text and is escaped where it is rendered; only `Figure.svg` is markup.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["good", "bad", "plain", "doubt"]


@dataclass(frozen=True)
class Text:
    """A paragraph; a `note` is set smaller."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are aligned to the right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under `columns`; the first cell of each names the row. A long one is folded away."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Pair:
    """One named figure of a summary, with a note; `key` is its colour in a drawing."""

    name: str
    value: str
    note: str = ""
    key: str = ""


@dataclass(frozen=True)
class Pairs:
    """A few figures side by side."""

    items: tuple[Pair, ...]


@dataclass(frozen=True)
class Figure:
    """A drawing: markup that `figures` made, which escapes what comes from data.

    `alone` where no table beside it says the same.
    """

    svg: str
    caption: str
    alone: bool = False


@dataclass(frozen=True)
class Answer:
    """Who said what about an example."""

    who: str
    what: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Example:
    """One item of the data: where it is, its text where that could be read, and the answers to it."""

    where: str
    text: str | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Examples:
    """Examples under a heading of their own."""

    title: str
    about: str
    items: tuple[Example, ...]


@dataclass(frozen=True)
class Code:
    """Text to be read or copied as it is."""

    label: str
    text: str
    language: str
    folded: bool = False


Block = Text | Bullets | Table | Pairs | Figure | Examples | Code


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading; `name` is its anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Opening:
    """What is read first: the word, one sentence, and the interval drawn."""

    word: str
    tone: Tone
    sentence: str
    caution: str
    figure: Figure | None
    pairs: Pairs
    second: tuple[str, Tone, str] | None
    label: str = "Verdict"


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    about: tuple[str, ...]
    opening: Opening
    sections: tuple[Section, ...] = field(default_factory=tuple)
