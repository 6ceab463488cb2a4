"""A report as one HTML file: no network, no scripts, everything that comes from data escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape
from importlib.resources import files
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

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@cache
def style() -> str:
    """The style sheet, which the file carries inside."""
    return files("tlscale.report").joinpath("style.css").read_text(encoding="utf-8")


def html(document: Document) -> str:
    """The whole page."""
    title = escape(f"{document.opening.word}: {document.title}")
    links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in document.sections)
    about = "".join(f"<li>{escape(fact)}</li>" for fact in document.about)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{title}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the verdict</a>\n'
        f'<header class="page"><p class="run">{escape(document.title)}</p>'
        f'<ul class="about">{about}</ul></header>\n'
        f'<main id="main">\n{_opening(document.opening)}\n'
        f'<nav aria-label="Sections of this report"><ul>{links}</ul></nav>\n'
        + "\n".join(map(_section, document.sections))
        + "\n</main>\n<footer><p>Written by tlscale from the files of the run directory. The same figures "
        "are in verdict.json, measurements.jsonl and outcomes.</p></footer>\n</body>\n</html>\n"
    )


def _opening(opening: Opening) -> str:
    caution = f'<p class="caution">{escape(opening.caution)}</p>' if opening.caution else ""
    figure = _figure(opening.figure) if opening.figure else ""
    second = ""
    if opening.second:
        word, tone, said = opening.second
        second = (
            f'<div class="second"><h2>Retention <span class="word {tone}">{escape(word)}</span></h2>'
            f"<p>{escape(said)}</p></div>"
        )
    return (
        f'<section class="opening" aria-labelledby="verdict-word">'
        f'<h1 id="verdict-word"><span class="label">{escape(opening.label)}</span> '
        f'<span class="word {opening.tone}">{escape(opening.word)}</span></h1>'
        f'<p class="lead">{escape(opening.sentence)}</p>{caution}{figure}'
        f"{_pairs(opening.pairs)}{second}</section>"
    )


def _section(section: Section) -> str:
    body = "\n".join(_block(block) for block in section.blocks)
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-heading">'
        f'<h2 id="{section.name}-heading">{escape(section.title)}</h2>\n'
        f'<div class="body">{body}</div></section>'
    )


def _block(block: Block) -> str:
    return RENDERERS[type(block)](block)


def _text(block: Text) -> str:
    return f'<p class="note">{escape(block.text)}</p>' if block.note else f"<p>{escape(block.text)}</p>"


def _bullets(block: Bullets) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in block.items) + "</ul>"


def _pairs(block: Pairs) -> str:
    if not block.items:
        return ""
    items = "".join(
        f"<div><dt>{_key(p.key)}{escape(p.name)}</dt><dd>{escape(p.value)}"
        + (f" <small>{escape(p.note)}</small>" if p.note else "")
        + "</dd></div>"
        for p in block.items
    )
    return f'<dl class="pairs">{items}</dl>'


def _key(style: str) -> str:
    return f'<span class="key {escape(style)}"></span>' if style else ""


def _figure(block: Figure) -> str:
    return f"<figure>{block.svg}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _table(block: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_numeric(column.numeric)}>{escape(column.title)}</th>' for column in block.columns
    )
    rows = []
    for row in block.rows:
        cells = "".join(
            f"<td{_numeric(column.numeric)}>{_breakable(cell)}</td>"
            for column, cell in zip(block.columns[1:], row[1:], strict=True)
        )
        rows.append(f'<tr><th scope="row">{_breakable(row[0])}</th>{cells}</tr>')
    caption = escape(block.caption)
    table = (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">'
        f"<table><caption><span>{caption}</span></caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return _fold(block.caption, table) if block.folded else table


def _breakable(text: str) -> str:
    """Escaped text that may be broken after the joints of long names."""
    return escape(text).replace("_", "_<wbr>").replace("/", "/<wbr>")


def _numeric(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _examples(block: Examples) -> str:
    items = []
    for example in block.items:
        text = "" if example.text is None else f"<blockquote>{escape(example.text)}</blockquote>"
        answers = "".join(
            f'<div><dt>{escape(a.who)}</dt><dd class="{a.tone}">{_breakable(a.what)}</dd></div>'
            for a in example.answers
        )
        items.append(f'<li><p class="where">{escape(example.where)}</p>{text}<dl>{answers}</dl></li>')
    return (
        f"<h3>{escape(block.title)} <small>{escape(block.about)}</small></h3>"
        f'<ul class="examples">{"".join(items)}</ul>'
    )


def _code(block: Code) -> str:
    code = f'<pre tabindex="0"><code class="language-{block.language}">{escape(block.text)}</code></pre>'
    return _fold(block.label, code) if block.folded else f"<h3>{escape(block.label)}</h3>{code}"


def _fold(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


RENDERERS: dict[type[Any], Callable[[Any], str]] = {
    Text: _text,
    Bullets: _bullets,
    Table: _table,
    Pairs: _pairs,
    Figure: _figure,
    Examples: _examples,
    Code: _code,
}
