"""Rows without answers: what a finished model is asked, from a file, by the recipe's own columns."""

from __future__ import annotations

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources.read import columns, read
from tlscale.sources.rows import Row, missing, slots


def read_inputs(file: str, wanted: str | None, usual: str) -> tuple[tuple[Row, ...], str]:
    """All rows of `file`, and the column or template that the input is read by.

    Args:
        file: A file of any type that `path` takes in a recipe.
        wanted: The column asked for; `None` for `usual`, or for the only column there is.
        usual: The recipe's column or template.

    Raises:
        DataError: the file can't be read, or has no such column.
    """
    spec = input_column(file, wanted, usual)
    return read(Source(path=file, text=spec), seed=0), spec


def input_column(file: str, wanted: str | None, usual: str) -> str:
    """The column or template of `file` that holds the input; reads the file's beginning only.

    Raises:
        DataError: as `read_inputs`.
    """
    there = columns(Source(path=file))
    spec = usual if wanted is None else wanted
    lacking = [name for name in ([spec] if spec in there else slots(spec) or [spec]) if name not in there]
    if not lacking:
        return spec
    if wanted is None and len(there) == 1:
        return there[0]
    hint = "" if wanted is not None else "; name one with --column"
    raise DataError(f"{file}: {missing(lacking[0], there)}{hint}")
