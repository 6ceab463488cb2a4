"""Which rows serve as what: the recipe's own, and those held out of the training rows."""

from __future__ import annotations

from typing import Literal

from tlscale.errors import DataError
from tlscale.recipe.types import Data, Source
from tlscale.sources.formats import map_columns, place
from tlscale.sources.read import read
from tlscale.sources.rows import Row, value
from tlscale.sources.selection import split

Rows = tuple[Row, ...]
Role = Literal["validation", "test", "retention", "replay", "train"]
GIVEN: tuple[Role, ...] = ("validation", "test", "retention", "replay", "train")


def role_rows(data: Data, role: Role, *, seed: int, run_seed: int) -> dict[str, tuple[Source, Rows]]:
    """The rows that the recipe gives for `role`; with train come those held out of it.

    What is held out depends on `seed` alone, so that repeats by other run seeds are judged on the same
    items; few-shot sampling varies with `run_seed`.

    Raises:
        DataError: as `read` and `split`.
    """
    source: Source | None = getattr(data, role)
    if source is None:
        return {}
    if role != "train":
        return {role: (source, read(source, seed=seed))}
    found: dict[str, tuple[Source, Rows]] = {}
    cut_test = data.test is None and data.test_split > 0
    cut_validation = data.validation is None and data.validation_split > 0
    rows = read(source, seed=seed if cut_test or cut_validation else run_seed)
    if cut_test:
        rows, held_out = split(rows, data.test_split, seed)
        found["test"] = (source, held_out)
    if cut_validation:
        rows, held_out = split(rows, data.validation_split, seed + 1)
        found["validation"] = (source, held_out)
    found["train"] = (source, rows)
    return found


def unlabelled_rows(source: Source, *, seed: int, label: str | None) -> tuple[Source, Rows]:
    """The inputs of `source` alone, all with the same `label` or none, so that its own can play no part.

    Raises:
        DataError: as `read`; or there is neither a text nor an image.
    """
    rows = read(source, seed=seed)
    if not rows:
        return source, rows
    by_role = map_columns(source, tuple(rows[0].values)).by_role
    role = "image" if "image" in by_role else "text"
    if role not in by_role:
        raise DataError(f"{place(source)}: unlabelled rows need a column of text or images")
    known = {} if label is None else {"label": label}
    kept = tuple(Row({role: value(row, by_role[role]), **known}, row.where) for row in rows)
    return source.model_copy(update={role: role, "label": None if label is None else "label"}), kept
