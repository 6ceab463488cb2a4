"""What is seen before any row: marks, misspelt columns, formats that the task can't use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tlscale.recipe.types import Source, Task
from tlscale.sources.doctor.finding import Finding, Kind, finding
from tlscale.sources.doctor.part import Part
from tlscale.sources.formats import ROLES, TASK_FORMATS, Columns, place
from tlscale.sources.rows import Row

_FEW_ROWS, _SHORT_LINE, _LINES = 10, 40, 200


def unfit(role: str, source: Source, columns: Columns, task: Task, where: str) -> Finding | None:
    """The finding when `task` can't use such rows at all."""
    if columns.format in TASK_FORMATS[task]:
        return None
    wanted = " or ".join(" + ".join(ROLES[form]) for form in TASK_FORMATS[task])
    text = (
        f"{place(source)}: {' + '.join(columns.by_role)} make the format {columns.format}, which "
        f"task {task} can't use; it needs {wanted}: name the columns in the recipe"
    )
    return Finding("error", role, where, "format", text)


def near_columns(role: str, source: Source, columns: Columns, there: Sequence[str]) -> Iterator[Finding]:
    """Columns that nobody named and that are almost called like something that is read."""
    if source.model_dump(include={name for roles in ROLES.values() for name in roles}, exclude_none=True):
        return
    roles = {name for names in ROLES.values() for name in names} - set(columns.by_role)
    for column in there:
        for name in sorted(roles - set(there)):
            if column not in columns.names and _one_edit(column.strip().casefold(), name):
                text = (
                    f"{place(source)}: column {column!r} isn't read; if {name} is meant, say "
                    f"{name}: {column!r} in the recipe, or rename it"
                )
                yield Finding("warning", role, place(source), "near-column", text)


def _one_edit(given: str, wanted: str) -> bool:
    """Whether `given` becomes `wanted` by one letter more, less, another, or by two changing places."""
    if given == wanted:
        return True
    at = next((i for i, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b), None)
    if at is None:
        return abs(len(given) - len(wanted)) == 1
    rest, other = given[at:], wanted[at:]
    return (
        rest[1:] == other[1:]
        or rest[1:] == other
        or rest == other[1:]
        or (rest[:2] == other[1::-1] and rest[2:] == other[2:])
    )


def marks(role: str, path: Path) -> Iterator[Finding]:
    """A byte-order mark at the beginning of a text file."""
    if path.is_file() and path.suffix.lower() not in (".npz", ".parquet", ".zip", ".gz"):
        with path.open("rb") as file:
            if file.read(3) == b"\xef\xbb\xbf":
                text = f"{path.name}:1: the file begins with a byte-order mark; it is left out"
                yield Finding("note", role, f"{path.name}:1", "bom", text)


def sizes(part: Part) -> Iterator[Finding]:
    """Too few rows to learn from, and lines that were one text."""
    count, where = len(part.rows), place(part.source)
    if part.source.document == "file" or part.source.separator:
        return
    if count < _FEW_ROWS and not _windowed(part):
        what = "learn from" if part.trains else "tell much"
        text = f"{where}: {count} row{'s' if count > 1 else ''} of {part.role}, too few to {what}"
        yield Finding("warning", part.role, part.rows[0].where, "few-rows", text)
    if Path(where).suffix.lower() in (".txt", ".text") and count >= _LINES:
        short = [row.where for row in part.rows if len(str(row.values.get("text"))) < _SHORT_LINE]
        if len(short) > count / 2:
            fix = "if they are one text, say document: file, or separator"
            kind = Kind("warning", "short-lines", "each line is a document of its own, and short", fix)
            yield finding(kind, part.role, short, count)


def _windowed(part: Part) -> bool:
    """Whether a few rows may be many examples."""
    return part.columns.format == "text" and _characters(part.rows) > 10_000


def _characters(rows: Sequence[Row]) -> int:
    return sum(len(found) for row in rows for found in row.values.values() if isinstance(found, str))
