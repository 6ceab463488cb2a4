"""Faults of single cells: empty, null, wrong-typed, badly decoded, and texts unlike their neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median
from typing import Any

from tlscale.sources.doctor.finding import Finding, Kind, finding, tally
from tlscale.sources.doctor.part import TEXTS, Part
from tlscale.sources.rows import describe

Hits = Iterator[tuple[Kind, str]]

# Tab, line feed and carriage return with line feed are the only control characters that texts have.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Bytes of UTF-8 read as Windows-1252: a leading byte's letter, then continuation bytes' characters.
_CONTINUED = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xA0))
_MOJIBAKE = re.compile(f"[\xc2-\xf4][\x80-\xbf{_CONTINUED}]{{1,3}}")
_BYTES = re.compile(r"b'.*'|b\".*\"", re.DOTALL)
_NOTHING = {
    "nan",
    "null",
    "undefined",
    "#n/a",
    "<na>",
    "[deleted]",
    "[removed]",
    "#ref!",
    "#value!",
    "#name?",
}
_NO_QUESTION = _NOTHING | {"none", "n/a"}
_SURROGATES = Kind(
    "error", "surrogate", "has half of a surrogate pair, which no text can hold", "export again as UTF-8"
)
_REPLACED = Kind(
    "warning",
    "replacement",
    "has the replacement character U+FFFD: an earlier step lost bytes",
    "export again from the original, as UTF-8",
)
_MARKED = Kind(
    "warning", "bom", "has a byte-order mark inside", "files were joined with their marks; remove them"
)
_MISREAD = Kind(
    "warning",
    "mojibake",
    "has UTF-8 that was read as Windows-1252",
    "repair it, for example with text.encode('cp1252').decode('utf-8')",
)
_LONG_TIMES, _LONG_CHARACTERS, _ENOUGH_ROWS = 50, 20_000, 20
_GLUED_SHARE = 0.5


def check(part: Part) -> list[Finding]:
    """All findings on the text cells of `part`."""
    found = []
    for name in TEXTS:
        cells = [
            (one[name], row.where) for one, row in zip(part.values, part.rows, strict=True) if name in one
        ]
        hits = (hit for cell, where in cells for hit in _cell(part, name, cell, where))
        found += tally(part.role, hits, len(part.rows))
    return [*found, *_long(part), *_pairs(part)]


def _cell(part: Part, name: str, cell: Any, where: str) -> Hits:
    what = part.columns.by_role.get(name, name)
    if not isinstance(cell, str):
        yield _no_text(what, cell), where
        return
    bare = cell.strip()
    if not bare:
        yield _empty(part, name, what), where
        return
    if len(bare) <= 12 and bare.lower() in (_NOTHING if name == "completion" else _NO_QUESTION):
        problem, fix = f"column {what!r} says {bare!r}", "an export's word for nothing? drop these rows"
        yield Kind("warning", "placeholder", problem, fix), where
    if bare == "[object Object]" or (bare[0] == "b" and _BYTES.fullmatch(bare)):
        problem = f"column {what!r} has a program's print of an object"
        yield Kind("warning", "printed-object", problem, "export its text instead"), where
    yield from characters(what, cell, where)


def _no_text(what: str, cell: Any) -> Kind:
    fix = "fill them in or drop these rows"
    if cell is None:
        return Kind("error", "null", f"column {what!r} is null where text is needed", fix)
    if isinstance(cell, float) and cell != cell:
        return Kind("error", "nan", f"column {what!r} is NaN where text is needed", fix)
    kind = describe(cell) if hasattr(cell, "shape") else f"a {type(cell).__name__}"
    problem = f"column {what!r} is {kind} where text is needed"
    return Kind("error", "wrong-type", problem, "write it as text, or name another column in the recipe")


def _empty(part: Part, name: str, what: str) -> Kind:
    problem = f"column {what!r} is empty"
    if name == "completion":
        return Kind("error", "empty", problem, "a row needs something to learn: fill it in or drop it")
    if name == "prompt":
        return Kind("warning", "empty", problem, "the answer is learned without a question; is that meant?")
    if part.columns.format == "text":
        return Kind("warning", "empty", problem, "such rows give no example; drop them")
    return Kind("error", "empty", problem, "fill them in or drop these rows")


def characters(what: str, cell: str, where: str) -> Hits:
    """What is wrong with the characters of one text."""
    control = _CONTROL.search(cell)
    if control is not None:
        yield _control(what, control[0]), where
    if cell.isascii():
        return
    if _SURROGATE.search(cell):
        yield _SURROGATES.about(what), where
    if "\ufffd" in cell:
        yield _REPLACED.about(what), where
    if "\ufeff" in cell:
        yield _MARKED.about(what), where
    if any(_repaired(run[0]) is not None for run in _MOJIBAKE.finditer(cell)):
        yield _MISREAD.about(what), where


def _control(what: str, character: str) -> Kind:
    if character == "\0":
        problem = f"column {what!r} has a NUL byte"
        return Kind("error", "nul", problem, "is this text at all? remove the bytes or drop these rows")
    if character == "\r":
        problem = f"column {what!r} has carriage returns without line feeds"
        return Kind(
            "warning", "carriage-return", problem, "convert line ends, for example with tr '\\r' '\\n'"
        )
    problem = f"column {what!r} has control characters"
    return Kind("warning", "control", problem, f"such as {character!r}; remove them")


def _repaired(run: str) -> str | None:
    """What `run` was before its bytes were read as Windows-1252, if they are UTF-8 at all."""
    raw = bytearray()
    for character in run:
        try:
            raw += character.encode("cp1252")
        except UnicodeEncodeError:
            raw += character.encode("latin-1", errors="ignore")
    for end in range(len(raw), 1, -1):
        try:
            return raw[:end].decode("utf-8")
        except UnicodeDecodeError:
            continue
    return None


def _long(part: Part) -> Iterator[Finding]:
    lengths = [sum(len(cell) for cell in one.values() if isinstance(cell, str)) for one in part.values]
    if len(lengths) < _ENOUGH_ROWS:
        return
    usual = median(lengths)
    most = max(_LONG_CHARACTERS, _LONG_TIMES * usual)
    found = [row.where for row, length in zip(part.rows, lengths, strict=True) if length > most]
    if found:
        problem = f"up to {max(lengths):,} characters where the median is {usual:,.0f}"
        fix = "an unclosed quote or several records in one? else raise data.max_length or drop them"
        yield finding(Kind("warning", "long-row", problem, fix), part.role, found, len(lengths))


def _pairs(part: Part) -> Iterator[Finding]:
    """Prompts beside their completions, anchors beside their positives."""
    for first, second in (("prompt", "completion"), ("anchor", "positive")):
        both = [
            (one[first], one[second], row.where)
            for one, row in zip(part.values, part.rows, strict=True)
            if isinstance(one.get(first), str) and isinstance(one.get(second), str) and one[second].strip()
        ]
        if not both:
            continue
        same = [where for a, b, where in both if a.strip() == b.strip()]
        if same:
            everywhere = len(same) > len(both) / 2
            kind = Kind(
                "error" if everywhere else "warning", "equal-pair", f"{first} and {second} are the same",
                "is one column named twice?" if everywhere else "drop these rows",
            )  # fmt: skip
            yield finding(kind, part.role, same, len(part.rows))
        if first == "prompt":
            yield from _completions(part, both)


def _completions(part: Part, both: list[tuple[str, str, str]]) -> Iterator[Finding]:
    glued = [where for a, b, where in both if a[-1:].isalnum() and b[0].isalnum()]
    if len(glued) > _GLUED_SHARE * len(both):
        fix = 'they are joined as they stand: end the template with a separator, "{prompt}\\n"'
        problem = "the completion starts in the middle of the prompt's last word"
        yield finding(Kind("warning", "glued", problem, fix), part.role, glued, len(part.rows))
    if len(both) >= _ENOUGH_ROWS and len({b.strip() for _, b, _ in both}) == 1:
        kind = Kind("warning", "constant", "the completion is always the same", "is it the right column?")
        yield finding(kind, part.role, [where for *_, where in both], len(part.rows))
