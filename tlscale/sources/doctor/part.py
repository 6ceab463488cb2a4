"""The rows of one role with what their columns mean already read out, shared by all checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources.doctor.finding import Finding, Kind, tally
from tlscale.sources.formats import Columns
from tlscale.sources.rows import Row, slots, value

TEXTS = ("text", "prompt", "completion", "anchor", "positive")


@dataclass(frozen=True)
class Part:
    """The rows that serve as `role`, and for each the values that fill its columns' roles.

    A value that couldn't be read is left out of its row's mapping.
    """

    role: str
    source: Source
    columns: Columns
    rows: tuple[Row, ...]
    values: tuple[Mapping[str, Any], ...]

    @property
    def trains(self) -> bool:
        """Whether these rows are learned from."""
        return self.role not in ("validation", "test", "retention")


def part_of(role: str, source: Source, rows: Sequence[Row], columns: Columns) -> tuple[Part, list[Finding]]:
    """The part, and what kept its values from being read: missing columns, templates over nulls."""
    hits: list[tuple[Kind, str]] = []
    values: list[dict[str, Any]] = []
    for row in rows:
        values.append({})
        for name, spec in columns.by_role.items():
            try:
                values[-1][name] = value(row, spec)
            except DataError as error:
                hits.append((_unreadable(name, spec, error), row.where))
    if source.split_at is not None:
        values = [_divided(one, source.split_at, row, hits) for one, row in zip(values, rows, strict=True)]
    part = Part(role, source, columns, tuple(rows), tuple(values))
    return part, tally(role, hits, len(rows))


def _unreadable(name: str, spec: str, error: DataError) -> Kind:
    said = str(error).partition(": ")[2]
    if slots(spec):
        return Kind("error", "template", f"{name}: {said}", "fill the column or drop these rows")
    return Kind("error", "missing-column", f"{name}: {said}", "give every record the same keys")


def _divided(
    values: Mapping[str, Any], mark: str, row: Row, hits: list[tuple[Kind, str]]
) -> dict[str, Any]:
    """A text cut into prompt and completion as `split_at` says; left whole where that can't be done."""
    content = values.get("text")
    if not isinstance(content, str) or not content.strip():
        return dict(values)
    before, found, after = content.partition(mark)
    if found:
        return {"prompt": before + found, "completion": after}
    problem = f"split_at {mark!r} isn't in the text"
    hits.append(
        (Kind("error", "split-at", problem, "correct data.*.split_at or drop these rows"), row.where)
    )
    return {}
