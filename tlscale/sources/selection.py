"""Which rows are used: spans, few-shot samples, limits and held-out parts, all by seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources.formats import Columns, place
from tlscale.sources.rows import Row, label


def select(
    rows: Sequence[Row], source: Source, columns: Columns, *, seed: int, one_document: bool
) -> tuple[Row, ...]:
    """The rows that `source` asks for, in file order: `span`, then `per_class`, then `limit`.

    Raises:
        DataError: nothing is left, or a class has fewer rows than `per_class`.
    """
    where = place(source)
    if not rows:
        raise DataError(f"{where}: the file is empty: no rows")
    chosen: tuple[Row, ...]
    if one_document:
        chosen = (_text_span(rows[0], source.span),)
    else:
        chosen = tuple(rows[int(len(rows) * source.span[0]) : int(len(rows) * source.span[1])])
    if not chosen or (one_document and not chosen[0].values["text"]):
        raise DataError(f"{where}: span {list(source.span)} leaves nothing of {len(rows)} rows")
    if source.per_class is not None:
        chosen = _few_shot(chosen, source.per_class, columns, where, seed)
    if source.limit is not None and len(chosen) > source.limit:
        chosen = _sample(chosen, source.limit, random.Random(f"limit {seed}"))
    return chosen


def split(rows: Sequence[Row], fraction: float, seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Cuts `rows` into (kept, held out) with about `fraction` of them held out, both in file order.

    Rows are drawn by `seed`. A single row with a single text is one document: its last characters are
    held out instead, whatever the seed. Nothing is held out for `fraction` 0.

    Raises:
        DataError: there are too few rows for both parts to have one.
    """
    if fraction == 0:
        return tuple(rows), ()
    if len(rows) == 1 and [type(value) for value in rows[0].values.values()] == [str]:
        return _cut_document(rows[0], fraction)
    held = max(1, round(len(rows) * fraction))
    if held >= len(rows):
        where = rows[0].where if rows else "no rows"
        raise DataError(f"{where}: {len(rows)} rows are too few to hold out {fraction:g} of them")
    out = set(random.Random(f"split {seed}").sample(range(len(rows)), held))
    kept = tuple(row for i, row in enumerate(rows) if i not in out)
    return kept, tuple(rows[i] for i in sorted(out))


def _cut_document(row: Row, fraction: float) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    ((column, content),) = row.values.items()
    at = int(len(content) * (1 - fraction))
    if at == 0 or at == len(content):
        raise DataError(f"{row.where}: {len(content)} characters are too few to hold out {fraction:g}")
    head = Row({column: content[:at]}, row.where, ends=False)
    return (head,), (replace(row, values={column: content[at:]}, where=_after(row.where, at)),)


def _text_span(row: Row, span: tuple[float, float]) -> Row:
    content = row.values["text"]
    start, end = (int(len(content) * side) for side in span)
    where = _after(row.where, start) if start else row.where
    return Row({"text": content[start:end]}, where, ends=end == len(content))


def _after(where: str, characters: int) -> str:
    return f"{where} from character {characters}"


def _few_shot(rows: Sequence[Row], count: int, columns: Columns, where: str, seed: int) -> tuple[Row, ...]:
    spec = columns.by_role.get("label")
    if spec is None:
        raise DataError(f"{where}: per_class needs a label column; the format is {columns.format}")
    classes: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        classes.setdefault(label(row, spec), []).append(i)
    smallest = min(classes, key=lambda name: len(classes[name]))
    if len(classes[smallest]) < count:
        raise DataError(
            f"{where}: per_class is {count}, but label {smallest!r} has {len(classes[smallest])} rows; "
            f"at most {len(classes[smallest])} per class are there"
        )
    chosen: list[int] = []
    for name in sorted(classes):
        # Seeded per class, so that a class's sample doesn't depend on which other classes there are.
        chosen += random.Random(f"per_class {seed} {name}").sample(classes[name], count)
    return tuple(rows[i] for i in sorted(chosen))


def _sample(rows: Sequence[Row], count: int, generator: random.Random) -> tuple[Row, ...]:
    return tuple(rows[i] for i in sorted(generator.sample(range(len(rows)), count)))
