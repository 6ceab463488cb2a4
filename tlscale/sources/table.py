"""What every kind of source looks like once it is found: column names, and rows on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tlscale.sources.rows import Row


@dataclass(frozen=True)
class Table:
    """`columns` are known without reading all; `load(names)` reads the rows.

    `load` may leave out columns that aren't among `names`. `count` is the number of rows where that is
    known beforehand; `quick` is false for a file too large to read for a mere look; `one_document`
    marks a single text that spans cut by characters.
    """

    columns: tuple[str, ...]
    load: Callable[[tuple[str, ...]], tuple[Row, ...]]
    count: int | None = None
    quick: bool = True
    one_document: bool = False
