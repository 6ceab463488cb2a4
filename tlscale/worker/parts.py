"""Writes the examples of rows that were read: in one part, or in several at once by helper processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tlscale.data.examples import Example, Prepared, PrepareReport
from tlscale.data.store import write
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import write_json
from tlscale.sources import Row
from tlscale.worker.crew import Crew

WORTHWHILE_ROWS = 256  # for each helper: forking one costs about as much as preparing some hundred rows


def write_parts(
    folder: Path,
    rows: Sequence[Row],
    prepared: Callable[[Sequence[Row]], Iterator[Prepared]],
    *,
    helpers: int,
    worthwhile: int = WORTHWHILE_ROWS,
) -> dict[str, Any]:
    """Writes the examples of `rows` to `folder`, in their order; returns the account, as plain values.

    Each of `helpers` gets `worthwhile` rows at least.

    Raises:
        DataError: a row can't be used.
        OSError: the system refuses.
    """
    folder.mkdir()
    count = max(1, min(helpers, len(rows) // worthwhile))

    def make(number: int) -> None:
        part = folder / f"part-{number:03d}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        accounts: list[PrepareReport] = []

        def examples() -> Iterator[Example]:
            for one in prepared(rows[len(rows) * number // count : len(rows) * (number + 1) // count]):
                accounts.append(one.report)
                yield from one.examples

        write(part, examples())
        write_json(part / MANIFEST, asdict(summed(accounts)))

    with closing(Crew(make, count if count > 1 else 0)) as crew:
        for number in range(count):
            crew.ask(number)
        for number in range(count):
            crew.wait(number)
            if not (folder / f"part-{number:03d}" / MANIFEST).exists():
                make(number)
    reports = [json.loads((part / MANIFEST).read_text(encoding="utf-8")) for part in folder.iterdir()]
    return asdict(summed([PrepareReport(**report) for report in reports]))


def summed(parts: Sequence[PrepareReport]) -> PrepareReport:
    """One account of several."""
    names = [field.name for field in fields(PrepareReport)]
    return PrepareReport(**{name: sum(getattr(part, name) for part in parts) for name in names})
