"""A report as Markdown, for a pull request or a model card: the same document without the drawings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tlscale.report.blocks import (
    Block,
    Bullets,
    Code,
    Document,
    Examples,
    Figure,
    Opening,
    Pairs,
    Section,
    Table,
    Text,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$!])")
_LINE_START = re.compile(r"^([-+=]+|\d+[.)])(?=\s|$)")
_ADDRESS = re.compile(r"(https?|ftp|www)([:.])", re.IGNORECASE)


def plain(text: str) -> str:
    """`text` as one line that Markdown shows as it is."""
    text = " ".join(text.split()).replace("&", "&amp;")
    text = _ADDRESS.sub(r"\1&#8203;\2", _SPECIAL.sub(r"\\\1", text))
    return _LINE_START.sub(lambda found: f"{found[1][:-1]}\\{found[1][-1]}", text)


def markdown(document: Document) -> str:
    """The whole report."""
    parts = [
        f"# {plain(document.opening.word)}: {plain(document.title)}",
        plain(", ".join(document.about)),
        *_opening(document.opening),
        *(part for section in document.sections for part in _section(section)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(opening: Opening) -> list[str]:
    parts = [f"**{plain(opening.sentence)}**", plain(opening.caution), _pairs(opening.pairs)]
    if opening.second:
        word, _, said = opening.second
        parts.append(f"**Retention {plain(word)}.** {plain(said)}")
    return parts


def _section(section: Section) -> list[str]:
    return [f"## {plain(section.title)}", *(_block(block) for block in section.blocks)]


def _block(block: Block) -> str:
    return RENDERERS[type(block)](block)


def _text(block: Text) -> str:
    return plain(block.text)


def _bullets(block: Bullets) -> str:
    return "\n".join(f"- {plain(item)}" for item in block.items)


def _pairs(block: Pairs) -> str:
    return "\n".join(
        f"- {plain(p.name)}: **{plain(p.value)}**" + (f" {plain(p.note)}" if p.note else "")
        for p in block.items
    )


def _figure(block: Figure) -> str:
    return plain(block.caption) if block.alone else ""


def _table(block: Table) -> str:
    lines = [
        f"### {plain(block.caption)}",
        "",
        "| " + " | ".join(plain(column.title) for column in block.columns) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in block.columns) + "|",
        *("| " + " | ".join(map(plain, row)) + " |" for row in block.rows),
    ]
    return "\n".join(lines)


def _examples(block: Examples) -> str:
    lines = [f"### {plain(block.title)} ({plain(block.about)})", ""]
    for example in block.items:
        lines.append(f"- {plain(example.where)}" + (f": {plain(example.text)}" if example.text else ""))
        lines += [f"  - {plain(answer.who)}: {plain(answer.what)}" for answer in example.answers]
    return "\n".join(lines)


def _code(block: Code) -> str:
    longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"### {plain(block.label)}\n\n{fence}{block.language}\n{block.text.rstrip()}\n{fence}"


RENDERERS: dict[type[Any], Callable[[Any], str]] = {
    Text: _text,
    Bullets: _bullets,
    Table: _table,
    Pairs: _pairs,
    Figure: _figure,
    Examples: _examples,
    Code: _code,
}
