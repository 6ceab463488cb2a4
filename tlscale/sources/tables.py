"""csv, tsv, json, jsonl and txt: text to rows, every fault with its line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from tlscale.errors import DataError
from tlscale.sources.rows import Row, describe

Reader = Callable[[str, str], tuple[Row, ...]]


def read_csv(text: str, where: str) -> tuple[Row, ...]:
    """Rows of comma-separated text with a header, quoted as in RFC 4180; blank lines are skipped.

    Raises:
        DataError: no header, a name twice in it, a row of another length, a quote that isn't closed.
    """
    with _long_fields():
        records = _csv_records(text, where)
        line, header = next(records, (1, []))
        _check_header(header, f"{where}:{line}")
        return tuple(
            Row(dict(zip(header, cells, strict=True)), f"{where}:{line}")
            for line, cells in records
            if _same_length(cells, header, f"{where}:{line}")
        )


def read_tsv(text: str, where: str) -> tuple[Row, ...]:
    """Rows of tab-separated text with a header, as IANA's text/tab-separated-values.

    One record a line; quotes are plain characters. Blank lines are skipped.

    Raises:
        DataError: as for csv.
    """
    lines = _lines(text)
    line, first = next(lines, (1, ""))
    header = first.split("\t")
    _check_header(header if first else [], f"{where}:{line}")
    found = []
    for line, content in lines:
        cells = content.split("\t")
        _same_length(cells, header, f"{where}:{line}")
        found.append(Row(dict(zip(header, cells, strict=True)), f"{where}:{line}"))
    return tuple(found)


def read_jsonl(text: str, where: str, first: int = 1) -> tuple[Row, ...]:
    """Rows of JSON Lines; blank lines are skipped. `first` is the number of the first line.

    Raises:
        DataError: a line that is broken JSON or no object.
    """
    found = []
    for line, content in _lines(text, first):
        place = f"{where}:{line}"
        record, end = _parse(content, 0, where, line)
        if content[end:].strip():
            raise DataError(f"{place}: more than one JSON value on the line")
        found.append(Row(_object(record, place), place))
    return tuple(found)


def read_json(text: str, where: str) -> tuple[Row, ...]:
    """Rows of one JSON list of objects.

    Raises:
        DataError: the file is something else, broken JSON, or an element that is no object.
    """
    at, line = _skip(text, 0, 1)
    if text[at : at + 1] != "[":
        raise DataError(
            f"{where}:{line}: a list of objects is needed, [{{...}}, {{...}}]; "
            "if each line is an object by itself, name the file .jsonl"
        )
    found: list[Row] = []
    at, line = _skip(text, at + 1, line)
    if text[at : at + 1] == "]":
        return ()
    while True:
        record, end = _parse(text, at, where, line)
        found.append(Row(_object(record, f"{where}:{line}"), f"{where}:{line}"))
        at, line = _skip(text, end, line + text.count("\n", at, end))
        mark = text[at : at + 1]
        if mark == "]":
            break
        if mark != ",":
            raise DataError(f"{where}:{line}: broken JSON: ',' or ']' is needed after an object")
        at, line = _skip(text, at + 1, line)
    after, line = _skip(text, at + 1, line)
    if text[after:]:
        raise DataError(f"{where}:{line}: more text after the end of the list")
    return tuple(found)


def read_txt(
    text: str, where: str, document: Literal["line", "file"], separator: str | None = None
) -> tuple[Row, ...]:
    """Rows with one column, text: each part between separators, each line, or the whole file.

    Blank parts and lines are left out; parts lose the white space around them.
    """
    if separator is not None:
        return tuple(_parts(text, where, separator))
    if document == "file":
        return (Row({"text": text}, f"{where}:1"),) if text.strip() else ()
    return tuple(Row({"text": content}, f"{where}:{line}") for line, content in _lines(text))


def _parts(text: str, where: str, separator: str) -> Iterator[Row]:
    line = 1
    for part in text.split(separator):
        if part.strip():
            first = line + part[: len(part) - len(part.lstrip())].count("\n")
            yield Row({"text": part.strip()}, f"{where}:{first}")
        line += part.count("\n") + separator.count("\n")


def csv_header(text: str, where: str) -> tuple[str, ...]:
    """The column names in the first record of `text`, which may be the beginning of a file."""
    with _long_fields():
        line, header = next(_csv_records(text, where), (1, []))
    _check_header(header, f"{where}:{line}")
    return tuple(header)


def tsv_header(text: str, where: str) -> tuple[str, ...]:
    """As `csv_header`, for tabs."""
    line, first = next(_lines(text), (1, ""))
    header = first.split("\t") if first else []
    _check_header(header, f"{where}:{line}")
    return tuple(header)


def jsonl_header(text: str, where: str) -> tuple[str, ...]:
    """The keys of the first object."""
    line, first = next(_lines(text), (1, "{}"))
    record, _ = _parse(first, 0, where, line)
    return tuple(_object(record, f"{where}:{line}"))


def _lines(text: str, first: int = 1) -> Iterator[tuple[int, str]]:
    # str.splitlines would also cut at characters such as U+2028, which may stand inside a value.
    for line, content in enumerate(text.split("\n"), start=first):
        if content.strip():
            yield line, content.removesuffix("\r")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Cells beyond the csv module's 128 KiB limit, which is one for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_records(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}:{start}: broken csv record: {error}") from error


def _check_header(header: list[str], place: str) -> None:
    if not header:
        raise DataError(f"{place}: the file is empty; a header line with column names is needed")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{place}: column {twice[0]!r} is twice in the header")


def _same_length(cells: list[str], header: list[str], place: str) -> bool:
    if len(cells) != len(header):
        raise DataError(
            f"{place}: {len(cells)} cells, but the header has {len(header)} columns "
            f"({', '.join(header)}); a cell with the separator in it needs quotes"
        )
    return True


def _skip(text: str, at: int, line: int) -> tuple[int, int]:
    """The position and line of the next character that is no white space."""
    start = at
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at, line + text.count("\n", start, at)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is twice in one object")
    return record


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _parse(text: str, at: int, where: str, line: int) -> tuple[Any, int]:
    """The JSON value that starts at `text[at]`, on `line` of the file, and where it ends."""
    start, line = _skip(text, at, line)
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        line += text.count("\n", start, error.pos)
        raise DataError(f"{where}:{line}: broken JSON: {error.msg}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}:{line}: broken JSON: {error}") from error


def _object(record: Any, place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{place}: {describe(record)} where an object {{...}} is needed")
    return record
