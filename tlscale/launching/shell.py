"""Just enough of the shell's grammar to see what a batch script expands, where, and under which quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Quoting = Literal["none", "double"]
NAME = r"(?P<variable>\$\{?[!#]?(?P<name>[A-Za-z_][A-Za-z0-9_]*))"
HERE = r"<<-?\s*(?P<escaped>\\?)(?P<quote>['\"]?)(?P<word>[A-Za-z_]\w*)(?P=quote)"
VARIABLE = re.compile(NAME)
HEREDOC = re.compile(HERE)
ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
BREAKS = " \t\n;&|()"
COMMENT = r"(?:^|(?<=[\s;&|()]))#[^\n]*"
PLAIN = [
    r"(?P<escape>\\[\s\S])", rf"(?P<comment>{COMMENT})", r"(?P<single>')", r'(?P<double>")',
    r"(?P<sum>\$\(\()", r"(?P<command>\$\()", NAME, rf"(?P<here>{HERE})", r"(?P<break>[ \t\n;&|(])",
]  # fmt: skip
# what is looked for inside each kind of quotes, and which kind a token opens
TOKENS = {
    "none": re.compile("|".join(PLAIN)),
    "command": re.compile("|".join([*PLAIN, r"(?P<leave>\))"])),
    "sum": re.compile("|".join([r"(?P<leave>\)\))", *PLAIN])),
    "single": re.compile("(?P<leave>')"),
    "double": re.compile(
        "|".join([r"(?P<escape>\\[\s\S])", r'(?P<leave>")', r"(?P<sum>\$\(\()", r"(?P<command>\$\()", NAME])
    ),
}
ENTERED = {"single": "single", "double": "double", "command": "command", "sum": "sum"}


@dataclass(frozen=True)
class Expansion:
    """A variable that the script's shell expands; `assigned` where its value becomes a variable's whole."""

    name: str
    line: int
    quoting: Quoting
    assigned: bool


@dataclass(frozen=True)
class Statement:
    """A line of code, with what continues it joined on; comments left out."""

    line: int
    text: str


def statements(text: str) -> Iterator[Statement]:
    """The code, without comments and the bodies of here-documents; what quotes hold is one line."""
    start, parts, closing, quote = 0, list[str](), None, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing is not None:
            closing = None if line.strip() == closing else closing
            continue
        code, quote = _without_comment(line, quote)
        start = start if parts else number
        goes_on = code.endswith("\\")
        parts.append(code.removesuffix("\\"))
        if goes_on or quote:
            continue
        joined = " ".join(part.strip() for part in parts).strip()
        if joined:
            yield Statement(start, joined)
        here = HEREDOC.search(joined)
        closing, parts = (here["word"] if here else None), []


def _without_comment(line: str, quote: str) -> tuple[str, str]:
    """A line without its comment, and the quote that is open at its end; `quote` is open at its start."""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote and line[place - 1 : place] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1] in BREAKS):
            return line[:place].rstrip(), ""
    return line.rstrip(), quote


def expansions(text: str) -> Iterator[Expansion]:
    """Every variable that the script's own shell expands: not those in single quotes, nor escaped ones."""
    stack, word, place = ["none"], 0, 0
    while found := TOKENS[stack[-1]].search(text, place):
        kind, place = found.lastgroup, found.end()
        if kind == "variable":
            quoting: Quoting = "double" if stack[-1] == "double" else "none"
            assigned = ASSIGNED.fullmatch(text[word : found.start()]) is not None
            yield Expansion(found["name"], _line(text, found.start()), quoting, assigned)
        elif kind == "here":
            start, place = _body(text, found)
            bare = not (found["escaped"] or found["quote"])
            for one in VARIABLE.finditer(text, start, place) if bare else ():
                yield Expansion(one["name"], _line(text, one.start()), "double", False)
        elif kind == "break":
            word = place
        elif kind in ENTERED:
            word = place if kind == "command" else word
            stack.append(ENTERED[kind])
        elif kind == "leave" and len(stack) > 1:
            stack.pop()


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _body(text: str, here: re.Match[str]) -> tuple[int, int]:
    """Where the body of a here-document begins and ends."""
    start = text.find("\n", here.end())
    start = len(text) if start < 0 else start
    closing = re.compile(rf"^\s*{re.escape(here['word'])}$", re.MULTILINE).search(text, start)
    return start, closing.end() if closing else len(text)
