"""Rows that are read while training goes on: positions, blocks, helpers, and the steps they make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.kit import ROOT, alive
from tests.unit.facts import llama
from tests.unit.test_plan_checks import CPU, recipe_of, stage_of
from tlscale.data.arriving import Arriving, Joined
from tlscale.data.examples import Example, Prepared
from tlscale.data.loader import streamed
from tlscale.data.store import Stored
from tlscale.data.types import Made, account, lengths
from tlscale.errors import DataError, PlanError
from tlscale.planning.checks import check
from tlscale.recipe.types import Source
from tlscale.sources import Row, columns, read
from tlscale.sources.streaming import Position, skip, take
from tlscale.worker.crew import Crew
from tlscale.worker.parts import write_parts
from tlscale.worker.supply import AHEAD, Blocks, Supply

COUNTS = (7, 0, 12, 4)
TEXTS = [f"text {number} \u00e9" for number in range(sum(COUNTS))]


def shards(folder: Path, kind: str) -> Source:
    """The texts in shards of several sizes, one of them empty, blank lines among them."""
    folder.mkdir()
    start = 0
    for number, count in enumerate(COUNTS):
        texts, path = TEXTS[start : start + count], folder / f"{number}.{kind}"
        start += count
        if kind == "parquet":
            pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=5)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n\n" for text in texts))
        else:
            path.write_text("\n".join(texts))
    return Source(path=str(folder), text="text", streaming=True, shuffle_buffer=5)


@pytest.mark.parametrize("size", [1, 5, 7, 100])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "txt"])
def test_a_stream_is_read_once_in_order_from_any_position(kind: str, size: int, tmp_path: Path) -> None:
    source = shards(tmp_path / "shards", kind)
    found: list[str] = []
    at: Position | None = Position()
    while at is not None:
        before = len(found)
        skipped = skip(source, Position(), before)
        again = [] if skipped is None else take(source, skipped, size)[0]
        rows, at = take(source, at, size)
        assert [row.values for row in again] == [row.values for row in rows]
        found += [row.values["text"] for row in rows]
    assert found == TEXTS
    assert columns(source) == ("text",)
    assert len(read(source, seed=0)) == 5, "a look is the first part"


def test_what_a_stream_can_not_read_is_said(tmp_path: Path) -> None:
    source = shards(tmp_path / "shards", "jsonl")
    (tmp_path / "shards" / "2.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=r"2\.jsonl:2: broken JSON"):
        take(source, Position(), 100)
    (tmp_path / "shards" / "4.txt").write_text("b")
    with pytest.raises(DataError, match="shards of one stream are of one type; here are jsonl, txt"):
        take(source, Position(), 1)
    (tmp_path / "shards" / "5.csv").write_text("b")
    with pytest.raises(DataError, match=r"5\.csv: can't be read as a stream.*jsonl"):
        take(source, Position(), 1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"limit": 3}, "limit needs all rows at once"),
        ({"span": [0.0, 0.5]}, "span needs all rows at once"),
        ({"path": None, "hub": "a/b"}, "streaming reads files"),
        ({"streaming": False, "shuffle_buffer": 3}, "shuffle_buffer goes with streaming"),
    ],
)
def test_what_does_not_go_with_streaming(more: dict[str, object], message: str) -> None:
    given = {"path": "x.jsonl", "streaming": True, **more}
    with pytest.raises(ValueError, match=message):
        Source.model_validate_json(json.dumps(given))


def prepared(rows: Sequence[Row]) -> Prepared:
    made = []
    for row in rows:
        number = int(row.values["text"].split()[1])
        if number == 20:
            raise DataError(f"{row.where}: no good")
        tokens = [os.getpid() if number == 0 else number] * (1 + number % 4)
        made.append(Made((Example(where=row.where, tokens=tokens, loss=[True] * len(tokens)),)))
    return account(made)


def told(examples: Arriving, count: int) -> list[tuple[str, int]]:
    return [(examples[at].where, len(examples[at].tokens or ())) for at in range(count)]


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_blocks_are_the_same_whoever_makes_them(helpers: int, tmp_path: Path) -> None:
    source = shards(tmp_path / "shards", "jsonl")
    seen: list[int] = []
    blocks = Blocks(tmp_path / "blocks", source, prepared)
    blocks.folder.mkdir()
    supply = Supply(blocks, leads=True, helpers=helpers, seen=lambda report: seen.append(report.rows))
    examples = Arriving(supply.block, supply.close)
    with closing(examples):
        first = examples[0]
        made = list(blocks.folder.glob("block-*"))
        assert len(made) <= 1 + AHEAD * helpers, "training begins before all is read"
        assert (first.tokens == [os.getpid()]) == (helpers == 0), "helpers do the work where there are any"
        assert told(examples, 20)[7:9] == [("2.jsonl:1", 4), ("2.jsonl:3", 1)]
        with pytest.raises(DataError, match="no good"):
            examples[20]
    assert seen == [5, 10, 15, 20]
    again = Supply(blocks, leads=True, helpers=0)
    block = again.block(0)
    assert block is not None
    assert block[0].tokens == first.tokens, "what is there is not made again"


def test_a_helper_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    made = tmp_path / "made"
    warned: list[str] = []
    made.mkdir()
    me = os.getpid()

    def make(number: int) -> None:
        if number == 1 and os.getpid() != me:
            os.kill(os.getpid(), signal.SIGKILL)
        (made / str(number)).write_text(str(os.getpid()))

    with closing(Crew(make, 1)) as crew:
        for number in (0, 1, 2):
            crew.ask(number)
        crew.wait(0)
        before = crew.pids()
        crew.wait(1)
        assert crew.lost == 1
        crew.ask(2)
        crew.wait(2)
        after = crew.pids()
        assert before != after
        assert (made / "2").read_text() == str(after[0])
    assert not (made / "1").exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in [*before, *after])
    blocks = Blocks(tmp_path / "blocks", shards(tmp_path / "shards", "txt"), prepared)
    blocks.folder.mkdir()
    supply = Supply(blocks, leads=True, helpers=1, warn=warned.append)
    with closing(Arriving(supply.block, supply.close)) as examples:
        _ = examples[0]
        os.kill(supply.helpers()[0], signal.SIGKILL)
        assert told(examples, 20)[19] == ("3.txt:1", 4)
    assert not warned or "a process that prepares rows died" in warned[0]


BUSY = """
import sys, time
from tlscale.worker.crew import Crew
crew = Crew(lambda number: time.sleep(600), 2)
crew.ask(0)
crew.ask(1)
print(*crew.pids(), flush=True)
time.sleep(600)
"""


def test_a_busy_helper_ends_with_its_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        helpers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(helpers) == 2
        assert all(alive(pid) for pid in helpers)
        process.kill()
    until = time.monotonic() + 10
    while any(alive(pid) for pid in helpers):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_ended_streams_are_known_and_begin_again(tmp_path: Path) -> None:
    source = shards(tmp_path / "shards", "parquet").model_copy(update={"shuffle_buffer": 4})
    blocks = Blocks(tmp_path / "blocks", source, lambda rows: account([made(row) for row in rows]))
    blocks.folder.mkdir()
    examples = Arriving(Supply(blocks, leads=True, helpers=0).block)
    orders = []
    for epoch in range(3):
        passed = list(examples.passed(seed=1, epoch=epoch))
        assert sum(len(sizes) for _, sizes in passed) == len(TEXTS)
        orders.append([first for first, _ in passed])
    assert orders[0] == sorted(orders[0]) != orders[1] != orders[2]
    assert blocks.ended() == 6
    with pytest.raises(IndexError):
        examples[len(TEXTS)]


def made(row: Row) -> Made:
    return Made((Example(where=row.where, tokens=[1]),))


def steps(world: int, accumulation: int, *, grouped: bool) -> list[set[int]]:
    blocks = [(0, [3, 1, 4, 5, 2, 9, 2, 1]), (8, []), (8, [8, 1, 7, 3]), (12, [6, 6])]
    micro = 4 // world // accumulation
    shares = [
        list(
            streamed(
                blocks, micro=micro, accumulation=accumulation, world=world, rank=rank, seed=3, epoch=0,
                grouped=grouped,
            )
        )
        for rank in range(world)
    ]  # fmt: skip
    flat: Iterator[list[int]] = (
        [index for share in step for one in share for index in one] for step in zip(*shares, strict=True)
    )
    found = list(flat)
    assert Counter(index for step in found for index in step) == Counter(range(14))
    assert 5 in found[0], "the longest of the first block comes first"
    return [set(step) for step in found]


@pytest.mark.parametrize("grouped", [False, True])
def test_steps_of_a_stream_are_the_same_for_every_world(grouped: bool) -> None:
    wanted = steps(1, 1, grouped=grouped)
    assert [len(step) for step in wanted] == [4, 4, 4, 2]
    assert (
        steps(2, 1, grouped=grouped)
        == steps(2, 2, grouped=grouped)
        == steps(1, 4, grouped=grouped)
        == wanted
    )


@pytest.mark.parametrize("helpers", [0, 3])
def test_rows_that_are_read_first_are_written_by_helpers_in_their_order(
    helpers: int, tmp_path: Path
) -> None:
    rows = [Row({"text": f"t {number}"}, f"x:{number}") for number in range(21, 40)]
    report = write_parts(
        tmp_path / "train", rows, lambda some: iter([prepared(some)]), helpers=helpers, worthwhile=5
    )
    parts = sorted((tmp_path / "train").iterdir())
    assert len(parts) == max(1, helpers)
    found = Joined([Stored(part) for part in parts])
    assert [one.where for one in found] == [row.where for row in rows]
    assert lengths(found) == [len(one.tokens or ()) for one in found]
    assert found[-1].where == found[18].where
    assert report["rows"] == report["examples"] == 19
    bad = [*rows, Row({"text": "t 20"}, "x:20")]
    with pytest.raises(DataError, match="x:20: no good"):
        write_parts(
            tmp_path / "bad", bad, lambda some: iter([prepared(some)]), helpers=helpers, worthwhile=5
        )


STREAM = {"path": "x.jsonl", "streaming": True}
PLAIN = {"path": "x.jsonl"}


@pytest.mark.parametrize(
    ("task", "parts", "message"),
    [
        (
            "causal-lm",
            {"data": {"train": PLAIN, "test": STREAM}},
            "data: only data.train can be read while",
        ),
        (
            "causal-lm",
            {"train": {}},
            r"train\.max_steps: .*epochs make no number of steps; set train\.max_steps",
        ),
        ("sequence-classification", {}, r"data\.train\.streaming: classes .* need all rows"),
        ("causal-lm", {"data": {"train": STREAM}}, r"data\.test: nothing can be held out"),
        (
            "causal-lm",
            {"data": {"train": STREAM, "test": PLAIN, "validation_split": 0.1}},
            r"data\.validation_split: nothing can be held out",
        ),
        (
            "causal-lm",
            {"evaluate": {"contamination": True}},
            r"evaluate\.contamination: items are looked up",
        ),
    ],
)
def test_a_plan_refuses_what_a_stream_can_not_do(task: str, parts: dict[str, Any], message: str) -> None:
    given = {"data": {"train": STREAM, "test": PLAIN}, "train": {"max_steps": 3}, **parts}
    recipe = recipe_of(task, **given)
    facts = llama(labels=("a", "b") if task == "sequence-classification" else ())
    with pytest.raises(PlanError, match=message):
        check(recipe, facts, (stage_of(recipe, facts),), CPU)


def test_a_plan_says_what_it_does_not_know() -> None:
    recipe = recipe_of(data={"train": STREAM, "test": PLAIN}, train={"max_steps": 3})
    (note,) = check(recipe, llama(), (stage_of(recipe, llama()),), CPU)
    assert "how many rows and epochs there are shows only then" in note
