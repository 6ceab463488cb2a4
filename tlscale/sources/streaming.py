"""Sources that are read in order while training goes on, and never as a whole.

A file is one shard, a folder has its data files as shards, in the order of their names. A position is a
place between two rows, so that reading goes on from there without reading again what came before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tlscale.errors import DataError, unknown
from tlscale.recipe.types import Source
from tlscale.sources import tables
from tlscale.sources.paths import decode, resolve
from tlscale.sources.rows import Row

ALLOWED = ("jsonl", "parquet", "txt")
_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet", ".txt": "txt"}


@dataclass(frozen=True)
class Position:
    """Before a row: which shard, how many bytes (parquet: rows) into it, and how many lines."""

    shard: int = 0
    offset: int = 0
    line: int = 0


def shards(source: Source) -> tuple[Path, ...]:
    """The files of a streaming source, in order.

    Raises:
        DataError: there are none, they are of different kinds, or of one that can't be read in parts.
    """
    path = resolve(source.path or "")
    found = [path]
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
    if not found:
        raise DataError(f"{path}: the folder is empty; a stream needs one or more of {', '.join(ALLOWED)}")
    for one in found:
        if one.suffix.lower() not in _KINDS:
            said = unknown(one.suffix.lower().lstrip("."), ALLOWED, "type")
            raise DataError(
                f"{one}: can't be read as a stream, since a position in it can't be gone back to; {said}; "
                "convert it, or leave out streaming"
            )
    kinds = {_KINDS[one.suffix.lower()] for one in found}
    if len(kinds) > 1:
        raise DataError(
            f"{path}: shards of one stream are of one type; here are {', '.join(sorted(kinds))}"
        )
    return tuple(found)


def kind_of(shard: Path) -> str:
    """jsonl, parquet or txt."""
    return _KINDS[shard.suffix.lower()]


def take(source: Source, at: Position, count: int) -> tuple[list[Row], Position | None]:
    """The next `count` rows from `at`, fewer at the end, and the position after them; `None` at the end.

    Memory is needed for these rows, and of a parquet file for one row group.

    Raises:
        DataError: a file can't be read, or a record is broken; the message names file and line.
    """
    files, rows, position = shards(source), list[Row](), at
    while len(rows) < count:
        shard = files[position.shard]
        reader = _parquet if kind_of(shard) == "parquet" else _lines
        more, after = reader(shard, position, count - len(rows))
        rows += more
        after = after or _next(position, files)
        if after is None:
            return rows, None
        position = after
    return rows, position


def _next(position: Position, files: tuple[Path, ...]) -> Position | None:
    return Position(position.shard + 1) if position.shard + 1 < len(files) else None


def skip(source: Source, at: Position, count: int) -> Position | None:
    """The position `count` rows after `at`, found without parsing them; `None` at the end."""
    files, position = shards(source), at
    while count:
        shard = files[position.shard]
        skipper = _skip_rows if kind_of(shard) == "parquet" else _skip_lines
        passed, after = skipper(shard, position, count)
        count -= passed
        after = after or _next(position, files)
        if after is None:
            return None
        position = after
    return position


def _blank(line: bytes) -> bool:
    return not line.strip()


def _skip_lines(shard: Path, at: Position, count: int) -> tuple[int, Position | None]:
    passed, line = 0, at.line
    with shard.open("rb") as file:
        file.seek(at.offset)
        while passed < count and (content := file.readline()):
            line += 1
            passed += not _blank(content)
        return passed, Position(at.shard, file.tell(), line) if file.peek(1) else None


def _skip_rows(shard: Path, at: Position, count: int) -> tuple[int, Position | None]:
    end, rows = at.offset + count, _parquet_rows(shard)
    return min(count, rows - at.offset), Position(at.shard, end, end) if end < rows else None


def _lines(shard: Path, at: Position, count: int) -> tuple[list[Row], Position | None]:
    rows: list[Row] = []
    line = at.line
    try:
        with shard.open("rb") as file:
            file.seek(at.offset)
            while len(rows) < count and (content := file.readline()):
                line += 1
                if not _blank(content):
                    rows.append(_row(shard, line, content))
            after = Position(at.shard, file.tell(), line) if file.peek(1) else None
    except OSError as error:
        raise DataError(f"{shard}: can't be read: {error}") from error
    return rows, after


def _row(shard: Path, line: int, content: bytes) -> Row:
    place = f"{shard.name}:{line}"
    text = decode(content, place).rstrip("\r\n")
    if kind_of(shard) == "txt":
        return Row({"text": text}, place)
    (row,) = tables.read_jsonl(text, shard.name, line)
    return row


def _parquet_rows(shard: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(shard).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{shard}: is no parquet file: {error}") from error


def _parquet(shard: Path, at: Position, count: int) -> tuple[list[Row], Position | None]:
    rows = [Row(record, f"{shard.name}[{number}]") for number, record in _records(shard, at.offset, count)]
    end = at.offset + len(rows)
    return rows, None if end >= _parquet_rows(shard) else Position(at.shard, end, end)


def _records(shard: Path, start: int, count: int) -> Iterator[tuple[int, dict[str, object]]]:
    """Records from number `start` on with their numbers, one row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file, first = pq.ParquetFile(shard), 0
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            low, high = max(start, first), min(start + count, first + size)
            if low < high:
                part = file.read_row_group(group).slice(low - first, high - low)
                yield from enumerate(part.to_pylist(), start=low)
            first += size
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{shard}: can't be read: {error}") from error
