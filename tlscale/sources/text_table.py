"""Text files, plain or gzipped, as tables; only their beginning is read for the column names."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import tables
from tlscale.sources.paths import decode, load
from tlscale.sources.rows import Row
from tlscale.sources.table import Table

TextKind = Literal["csv", "tsv", "json", "jsonl", "txt"]

_HEAD = 1 << 16
# Beyond this a plan doesn't read the file just to say how many rows it has.
_QUICK = 64 << 20
_HEADERS = {"csv": tables.csv_header, "tsv": tables.tsv_header, "jsonl": tables.jsonl_header}
_READERS: dict[str, tables.Reader] = {
    "csv": tables.read_csv,
    "tsv": tables.read_tsv,
    "json": tables.read_json,
    "jsonl": tables.read_jsonl,
}


def from_file(path: Path, kind: TextKind, source: Source) -> Table:
    """The table in the text file `path`.

    Raises:
        DataError: it can't be read, or has no column names.
    """
    quick = path.stat().st_size <= _QUICK
    return _table(lambda: load(path), _head(path), path.name, kind, source, quick)


def from_bytes(content: Callable[[], bytes], where: str, kind: TextKind, source: Source) -> Table:
    """The table in a text file that lies in an archive."""
    return _table(content, content(), where, kind, source, True)


def _head(path: Path) -> bytes:
    """Whole lines from the beginning of the file; all of it when the first line is very long."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content: bytes = file.read(_HEAD)
            if len(content) < _HEAD:
                return content
            return content[: content.rindex(b"\n") + 1] if b"\n" in content else content + file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be read: {error}") from error


def _table(
    content: Callable[[], bytes],
    head: bytes,
    where: str,
    kind: TextKind,
    source: Source,
    quick: bool,
) -> Table:
    def rows(_names: tuple[str, ...]) -> tuple[Row, ...]:
        text = decode(content(), where)
        if kind == "txt":
            return tables.read_txt(text, where, source.document, source.separator)
        return _READERS[kind](text, where)

    if kind == "txt":
        return Table(("text",), rows, quick=quick, one_document=source.document == "file")
    if not head.strip():
        raise DataError(f"{where}:1: the file is empty")
    if kind == "json":
        first = tables.read_json(decode(content(), where), where)[:1]
        columns = tuple(first[0].values) if first else ()
    else:
        columns = _HEADERS[kind](decode(head, where), where)
    return Table(columns, rows, quick=quick)
