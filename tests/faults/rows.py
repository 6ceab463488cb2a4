"""Training examples of a trial, as a run has them: tokenized ahead or as a stream, with helpers or none."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.unit.test_engine_loop import examples
from tlscale.data.arriving import Arriving, Examples, Joined
from tlscale.data.examples import Example
from tlscale.data.packing import Packed, rows_of
from tlscale.data.store import Stored
from tlscale.data.types import Made, Prepared, account, lengths
from tlscale.models.saving import saving
from tlscale.recipe.types import Source
from tlscale.sources import Row
from tlscale.worker.parts import write_parts
from tlscale.worker.supply import Blocks, Supply

COUNT = 36
BLOCK = 10
PACKED = 24


@dataclass(frozen=True)
class Given:
    """Examples, how many steps two epochs have where that must be said, and what to do at the end."""

    examples: Examples
    max_steps: int | None
    close: Callable[[], None] = lambda: None


def given(folder: Path, *, stream: bool, workers: int, packing: bool, leads: bool, per_step: int) -> Given:
    """The rows of a trial in `folder`, which may have been there before."""
    if stream:
        return _streamed(folder, workers, packing, leads, per_step)
    target = folder / "examples"
    if leads and not target.is_dir():
        with saving(target) as partial:
            write_parts(
                partial / "train",
                _rows(),
                lambda rows: iter([_prepared(rows)]),
                helpers=workers,
                worthwhile=9,
            )
            partial.rename(target)
    while not target.is_dir():
        time.sleep(0.01)
    stored = Joined([Stored(part) for part in sorted((target / "train").iterdir())])
    return Given(Packed(stored, PACKED) if packing else stored, None)


def _streamed(folder: Path, workers: int, packing: bool, leads: bool, per_step: int) -> Given:
    shards, target = folder / "shards", folder / "stream"
    if leads and not target.is_dir():
        shards.mkdir(exist_ok=True)
        for number in range(2):
            rows = _rows()[number * COUNT // 2 : (number + 1) * COUNT // 2]
            lines = [json.dumps(dict(row.values)) + "\n" for row in rows]
            (shards / f"{number}.jsonl").write_text("".join(lines))
        target.mkdir()
    while not target.is_dir():
        time.sleep(0.01)
    source = Source(path=str(shards), text="tokens", streaming=True, shuffle_buffer=BLOCK)
    supply = Supply(Blocks(target, source, _prepared), leads=leads, helpers=workers)
    arriving = Arriving(supply.block, supply.close)
    sizes = lengths(examples(COUNT))
    parts = [sizes[at : at + BLOCK] for at in range(0, COUNT, BLOCK)]
    count = sum(len(rows_of(part, PACKED)) if packing else len(part) for part in parts)
    made = arriving.mapped(lambda block: Packed(block, PACKED)) if packing else arriving
    return Given(made, 2 * math.ceil(count / per_step), supply.close)


def _rows() -> list[Row]:
    return [Row({"tokens": one.tokens, "loss": one.loss}, one.where) for one in examples(COUNT)]


def _prepared(rows: Sequence[Row]) -> Prepared:
    made = [Example(where=row.where, tokens=row.values["tokens"], loss=row.values["loss"]) for row in rows]
    return account([Made((one,)) for one in made])
