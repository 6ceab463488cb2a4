"""The three looks at a source: its columns, a quick survey for the plan, and all its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

from tlscale.errors import DataError, unknown
from tlscale.recipe.types import Source
from tlscale.sources import archives, arrays, hub, images, streaming, text_table
from tlscale.sources.formats import Columns, Format, map_columns, place
from tlscale.sources.paths import resolve
from tlscale.sources.rows import Row, label, sort_labels, text
from tlscale.sources.selection import select
from tlscale.sources.table import Table

_KINDS = {"ndjson": "jsonl", "pq": "parquet", "text": "txt"}
MIXED = ("text", "label")
_ALLOWED = (*get_args(text_table.TextKind), "parquet", "npz", "zip")


@dataclass(frozen=True)
class Survey:
    """What a quick look told; `None` where that would need the network or a long read."""

    rows: int | None
    labels: tuple[str, ...] | None
    format: Format | None


def read(source: Source, *, seed: int) -> tuple[Row, ...]:
    """All rows of `source` after `span`, `per_class` and `limit`, the same for the same seed.

    Of a streaming source only the first `shuffle_buffer`: a look at it.

    Raises:
        DataError: the source can't be found or read, a record is broken, a column is missing, or
            nothing is left; the message names the file and the line.
    """
    if source.streaming:
        return tuple(streaming.take(source, streaming.Position(), source.rows_at_once)[0])
    if source.tasks is not None:
        return tuple(row for name, part in source.tasks.items() for row in _of_task(name, part, seed))
    table = _open(source)
    mapped = map_columns(source, table.columns)
    rows = table.load(mapped.names)
    return select(rows, source, mapped, seed=seed, one_document=table.one_document)


def records(source: Source) -> tuple[Row, ...]:
    """Every row of `source` with every column that is kept, whatever the columns are called.

    Raises:
        DataError: the source can't be found or read.
    """
    if source.tasks is not None:
        return read(source, seed=0)
    table = _open(source)
    return table.load(table.columns)


def columns(source: Source) -> tuple[str, ...]:
    """The column names of `source`; the beginning of the file is enough for most types.

    Raises:
        DataError: the source can't be found or its names can't be read.
    """
    if source.tasks is not None:
        return MIXED
    if source.streaming:
        first = str(streaming.shards(source)[0])
        return _open(source.model_copy(update={"path": first, "streaming": False})).columns
    return _open(source).columns


def survey(source: Source, *, need_labels: bool) -> Survey:
    """A quick look at a local source; all `None` for one on the Hub.

    `labels` are those of the whole file, even where `limit` may leave some of them without a row.

    Raises:
        DataError: as `read`.
    """
    if source.tasks is not None:
        return _survey_of_tasks(source.tasks)
    if source.hub is not None:
        return Survey(None, None, None)
    if source.streaming:
        return Survey(None, None, map_columns(source, columns(source)).format)
    table = _open(source)
    mapped = map_columns(source, table.columns)
    spec = mapped.by_role.get("label")
    wants_labels = spec is not None and (need_labels or source.per_class is not None)
    if not wants_labels and table.count is not None and not table.one_document:
        return Survey(_narrowed(table.count, source), None, mapped.format)
    if not wants_labels and not table.quick:
        return Survey(None, None, mapped.format)
    rows = table.load(_label_columns(mapped) if wants_labels else mapped.names)
    names = sort_labels({label(row, spec) for row in rows}) if wants_labels and spec else None
    chosen = select(rows, source, mapped, seed=0, one_document=table.one_document)
    return Survey(len(chosen), names if need_labels else None, mapped.format)


def _of_task(name: str, part: Source, seed: int) -> tuple[Row, ...]:
    """The rows of one task with the columns text and label, each label with the task's name before it."""
    rows = read(part, seed=seed)
    by_role = map_columns(part, tuple(rows[0].values)).by_role if rows else {}
    if rows and set(by_role) != set(MIXED):
        raise DataError(f"{place(part)}: task {name} needs a column of text and one of labels")
    return tuple(
        Row(
            {"text": text(row, by_role["text"]), "label": f"{name}/{label(row, by_role['label'])}"},
            row.where,
        )
        for row in rows
    )


def _survey_of_tasks(tasks: Mapping[str, Source]) -> Survey:
    found = {name: survey(part, need_labels=True) for name, part in tasks.items()}
    for name, one in found.items():
        if one.labels is None or one.rows is None:
            raise DataError(
                f"{place(tasks[name])}: task {name} needs labels that are known before the run; give a "
                "file with a column of text and one of labels"
            )
    names = {f"{name}/{one}" for name, seen in found.items() for one in seen.labels or ()}
    return Survey(sum(seen.rows or 0 for seen in found.values()), sort_labels(names), "classification")


def _label_columns(mapped: Columns) -> tuple[str, ...]:
    return Columns(mapped.format, {"label": mapped.by_role["label"]}).names


def _narrowed(count: int, source: Source) -> int:
    """How many of `count` rows `span` and `limit` leave."""
    left = int(count * source.span[1]) - int(count * source.span[0])
    return left if source.limit is None else min(left, source.limit)


def _open(source: Source) -> Table:
    if source.path is None:
        return hub.from_hub(source)
    if source.name is not None or source.revision is not None:
        raise DataError(f"{place(source)}: name and revision belong to a Hub data set, not to a file")
    path = resolve(source.path)
    kind = "" if path.is_dir() else _kind(path.name)
    if (source.document == "file" or source.separator) and kind not in ("txt", "zip"):
        key = "separator" if source.separator else "document: file"
        raise DataError(f"{place(source)}: {key} is for txt files; this is {kind or 'a folder'}")
    if path.is_dir():
        return _open_folder(path)
    if kind == "zip":
        return archives.from_zip(path, lambda name, content: _member(path, name, content, source))
    if kind == "npz":
        return arrays.from_npz(path, path.name)
    if kind == "parquet":
        return arrays.from_parquet(path, path.name)
    for text_kind in get_args(text_table.TextKind):
        if kind == text_kind:
            return text_table.from_file(path, text_kind, source)
    raise DataError(f"{path}: file type {kind or path.name!r}: {unknown(kind, _ALLOWED, 'type')}")


def _open_folder(path: Path) -> Table:
    entries = list(path.iterdir())
    if any(entry.suffix.lower() == ".npz" for entry in entries):
        return arrays.from_npz_folder(path)
    if any(entry.is_dir() or images.is_sorted(entry.name) for entry in entries):
        return images.from_folder(path)
    listed = ", ".join(sorted(entry.name for entry in entries)[:12]) or "nothing"
    raise DataError(
        f"{path}: is a folder of neither images or WAV files by class nor npz files; name one of: {listed}"
    )


def _member(path: Path, name: str, content: Callable[[], bytes], source: Source) -> Table | None:
    """The table of the one file in a zip."""
    kind, where = _kind(name), f"{path.name}/{name}"
    if name.lower().endswith(".gz"):
        return None
    if kind == "npz":
        return arrays.from_npz(content(), where)
    if kind == "parquet":
        return arrays.from_parquet(content(), where)
    for text_kind in get_args(text_table.TextKind):
        if kind == text_kind:
            return text_table.from_bytes(content, where, text_kind, source)
    return None


def _kind(name: str) -> str:
    """The file type that a name tells, without a compression's suffix."""
    lower = name.lower().removesuffix(".gz")
    suffix = PurePosixPath(lower).suffix.removeprefix(".")
    return _KINDS.get(suffix, suffix)
