"""A stream of rows as blocks of examples in the run directory, made ahead of training.

Block k has the examples of rows k*n to (k+1)*n of the source and, in its manifest, the position after
them. What is there is never made again, so a run that goes on reads nothing twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlscale.data.examples import Example, Prepared, PrepareReport
from tlscale.data.store import Stored, write
from tlscale.models.saving import into_place, saving
from tlscale.recipe.types import Source
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import claim, write_json
from tlscale.sources import Row
from tlscale.sources.streaming import Position, skip, take
from tlscale.worker.crew import Crew
from tlscale.worker.parts import summed

END = "end.json"
LOOK_AGAIN_SECONDS = 0.05
AHEAD = 2  # blocks that are made ahead for each helper
Prepare = Callable[[Sequence[Row]], Prepared]


class Blocks:
    """The blocks of `source` in `folder`."""

    def __init__(self, folder: Path, source: Source, prepare: Prepare) -> None:
        self.folder, self._source, self._prepare = folder, source, prepare

    def path(self, number: int) -> Path:
        """Where a block is, once it is whole."""
        return self.folder / f"block-{number:06d}"

    def about(self, number: int) -> dict[str, Any] | None:
        """A block's manifest, where it is whole."""
        try:
            found: dict[str, Any] = json.loads((self.path(number) / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def ended(self) -> int | None:
        """How many blocks there are in all, once that is known."""
        try:
            found: int = json.loads((self.folder / END).read_text(encoding="utf-8"))["blocks"]
        except FileNotFoundError:
            return None
        return found

    def make(self, number: int) -> None:
        """Makes block `number`, unless it is there or past the end.

        Raises:
            DataError: a row can't be read or used.
            WriteError: the system refuses; no part of the block is there.
        """
        if self.about(number) is not None:
            return
        at = self._start(number)
        rows, after = take(self._source, at, self._source.rows_at_once) if at is not None else ([], None)
        if rows:
            made = self._prepare(rows)
            with saving(self.path(number)) as partial:
                write(partial, made.examples)
                facts = {"report": asdict(made.report), "next": None if after is None else asdict(after)}
                write_json(partial / MANIFEST, facts)
                into_place(partial, self.path(number))
        if after is None and self.ended() is None and (number == 0 or self.about(number - 1) is not None):
            # helpers may find the end at once
            claim(self.folder / END, json.dumps({"blocks": number + bool(rows)}))

    def _start(self, number: int) -> Position | None:
        """The position before block `number`, gone to from the nearest block that is there."""
        for before in range(number - 1, -1, -1):
            about = self.about(before)
            if about is not None:
                at = None if about["next"] is None else Position(**about["next"])
                missing = number - 1 - before
                break
        else:
            at, missing = Position(), number
        return at and skip(self._source, at, missing * self._source.rows_at_once) if missing else at


class Supply:
    """Gives blocks in order; the leading process has them made, by `helpers` ahead of it.

    `arriving(number)` is called once for each block before it is waited for, `seen` with the account of all
    blocks up to it, and `warn` when a helper died.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        leads: bool,
        helpers: int,
        arriving: Callable[[int], None] = lambda number: None,
        seen: Callable[[PrepareReport], None] = lambda report: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._blocks, self._leads, self._next = blocks, leads, 0
        self._arriving, self._seen, self._warn = arriving, seen, warn
        self._report = summed([])
        self._ahead = AHEAD * helpers if leads else 0
        self._crew = Crew(blocks.make, helpers if leads else 0)

    def block(self, number: int) -> Sequence[Example] | None:
        """The examples of block `number`; `None` past the end. Waits until it is there.

        Raises:
            DataError: a row of it can't be read or used.
            WriteError: it can't be written.
        """
        first = number == self._next
        if first:
            self._arriving(number)
        self._order(number)
        about = self._waited(number)
        if about is None:
            return None
        if first:
            self._next += 1
            self._report = summed([self._report, PrepareReport(**about["report"])])
            self._seen(self._report)
        return Stored(self._blocks.path(number))

    def _order(self, number: int) -> None:
        for ahead in range(number, number + self._ahead):
            if self._blocks.ended() is None and self._blocks.about(ahead) is None:
                self._crew.ask(ahead)

    def _waited(self, number: int) -> dict[str, Any] | None:
        blocks, lost = self._blocks, self._crew.lost
        while (about := blocks.about(number)) is None:
            ended = blocks.ended()
            if ended is not None and number >= ended:
                return None
            if not self._leads:
                # no collective call: a block may take longer than those wait
                time.sleep(LOOK_AGAIN_SECONDS)
                continue
            self._crew.wait(number)
            if self._crew.lost != lost:
                lost = self._crew.lost
                self._warn(
                    "a process that prepares rows died; its rows are prepared here, and another takes over"
                )
            blocks.make(number)
        return about

    def helpers(self) -> list[int]:
        """The processes of the helpers that are at work."""
        return self._crew.pids()

    def close(self) -> None:
        """Ends the helpers."""
        self._crew.close()
