"""Ledger, hang detection, whole folders, logs that were cut short, and recipes that changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tlscale.engine import abandoned, store
from tlscale.errors import Stopped, WriteError
from tlscale.runs import ledger
from tlscale.runs.hang import Seen, Shown, reason_for
from tlscale.runs.layout import RunLayout
from tlscale.runs.ledger import Attempt, Ledger, Record
from tlscale.runs.pulse import Pulse
from tlscale.runs.record import append_line, claim, read_lines
from tlscale.runs.result import mark_stopped, read_stopped


def written(folder: Path, attempt: int, after: int, steps: range, *, rank: int = 0, world: int = 1) -> Path:
    """A ledger in which step s of 2 an epoch takes rows 0-3 or 4-7 of 8."""
    made = Ledger(folder, Attempt("train", attempt, rank, world, after, examples=8, total=4))
    for step in steps:
        start = 4 * ((step - 1) % 2)
        made.add(Record(step, (step - 1) // 2, tuple(range(start + rank, start + 4, world))))
    made.sync()
    made.close()
    return folder / f"{attempt:04d}-rank-{rank}.bin"


def test_a_ledger_proves_exactly_once_over_kills_and_another_world(tmp_path: Path) -> None:
    torn = written(tmp_path, 1, 0, range(1, 4))
    torn.write_bytes(torn.read_bytes()[:-3])
    assert ledger.last_step(tmp_path) == 2
    for rank in range(2):
        written(tmp_path, 2, 1, range(2, 5), rank=rank, world=2)
    made = ledger.audit(tmp_path, "train")
    assert made is not None
    assert not made.problems
    assert (made.attempts, made.steps, made.repeated, made.complete) == (2, 4, 1, 2)
    assert made.epochs == ((8, 0, 0), (8, 0, 0))


def test_a_ledger_tells_what_came_twice_or_never(tmp_path: Path) -> None:
    made = Ledger(tmp_path, Attempt("train", 1, 0, 1, 0, examples=4, total=2))
    for step, rows in enumerate([(0, 1), (1, 2), (0, 1), (2, 3)], start=1):
        made.add(Record(step, (step - 1) // 2, rows))
    made.close()
    found = ledger.audit(tmp_path, "train")
    assert found is not None
    assert found.problems == ("epoch 1: 1 examples came more than once", "epoch 1: 1 examples never came")


def shown(rank: int, count: int, **more: Any) -> Shown:
    about: dict[str, Any] = {
        "host": "h", "pid": rank, "number": 5, "place": "step 3", "guarded": True, "quiet": 0.5,
        "still": 70.0, "frame": 'File "/torch/autograd/graph.py"',
    }  # fmt: skip
    return Shown(rank=rank, count=count, **{**about, **more})


@pytest.mark.parametrize(
    ("others", "news", "wanted"),
    [
        ([shown(1, 9)], {1}, (1, "the other ranks wait for it")),
        ([shown(1, 9, guarded=False)], {1}, None),
        ([shown(1, 10, quiet=61.0)], {1}, (1, "no sign of life")),
        ([shown(1, 10)], set(), (1, "no news from it; its machine h or its network is gone")),
        ([shown(1, 10, frame='File "user.py"')], {1}, (1, "the other ranks wait for it")),
        ([shown(1, 10)], {1}, (0, "all ranks wait in one exchange that does not end")),
        ([], set(), (0, "it does not move")),
    ],
)
def test_the_rank_that_others_wait_for_is_named(
    others: list[Shown], news: set[int], wanted: tuple[int, str] | None
) -> None:
    found = reason_for(shown(0, 10), others, news, 60.0)
    assert (None if found is None else (found[0].rank, found[2])) == wanted


def test_slow_steps_and_long_loads_are_no_hang() -> None:
    seen = Seen.start(0.0)
    for count in range(5):
        seen.hear({"count": count, "place": "step", "guarded": True}, 30.0 * count)
    assert not seen.stuck(120.0 + 149.0, 60.0)
    assert seen.stuck(120.0 + 151.0, 60.0)
    seen.hear({"count": 6, "place": "save", "guarded": False}, 150.0)
    assert not seen.stuck(9000.0, 60.0)
    assert not seen.quiet(150.0 + 299.0, 60.0, stopped=False)
    assert seen.quiet(150.0 + 61.0, 60.0, stopped=True)


def folder(root: Path, step: int, text: str = "abc") -> Path:
    target = root / f"step-{step:06d}"
    store.commit(target, {"part": lambda path: path.write_text(text) and None}, {"key": "k"})
    return target


def test_whole_folders_only_and_the_last_good_one_stays(tmp_path: Path) -> None:
    made = [folder(tmp_path, step) for step in (2, 4, 6)]
    (made[2] / "part").write_text("abd")
    store.prune(tmp_path, "step-*", keep=1, last=made[2], key="k")
    assert all(one.is_dir() for one in made), "nothing goes while the newest is not whole"
    found = store.newest(tmp_path, "step-*", "k")
    assert found.folder == made[1]
    assert found.passed_over == ("step-000006: part was changed after it was written",)
    store.prune(tmp_path, "step-*", keep=1, last=made[1], key="k")
    assert [one.is_dir() for one in made] == [False, True, False]


@pytest.mark.parametrize("name", ["../outside", "part"])
def test_a_manifest_reaches_for_nothing_outside(name: str, tmp_path: Path) -> None:
    target = folder(tmp_path, 2)
    (tmp_path / "outside").write_text("abc")
    (target / "part").unlink()
    (target / "part").symlink_to(tmp_path / "outside")
    said = json.loads((target / "manifest.json").read_text())
    said["files"] = {name: said["files"]["part"]}
    (target / "manifest.json").write_text(json.dumps(said))
    assert store.fault(target, "k") == f"{name} is missing"


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    before = folder(tmp_path, 2)

    def full(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="No space left"):
        store.commit(before, {"part": full}, {"key": "k"})
    assert store.fault(before, "k") is None
    assert list(tmp_path.iterdir()) == [before]


def test_a_log_cut_short_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append_line(log, {"a": 1})
    with log.open("a") as file:
        file.write('{"a": 2, "text": "' + "x" * 9000)
    append_line(log, {"a": 3})
    assert [row["a"] for row in read_lines(log)] == [1, 3]


def test_locks_of_builds_that_were_killed_are_removed(tmp_path: Path) -> None:
    left, held, young = (tmp_path / "py311" / name / "lock" for name in ("left", "held", "young"))
    for lock in (left, held, young):
        lock.parent.mkdir(parents=True)
        lock.touch()
    for lock in (left, held):
        os.utime(lock, (0, 0))
    with held.open():
        assert abandoned.free(tmp_path) == (left,)
    assert [lock.exists() for lock in (left, held, young)] == [False, True, True]
    assert abandoned.free(tmp_path / "nowhere") == ()


def test_one_of_several_markers_stays(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    mark_stopped(layout, Stopped("SIGTERM", stage="train", step=3, steps=9))
    assert not claim(layout.stopped, "late")
    found = read_stopped(layout)
    assert found is not None
    assert (found.reason, found.step) == ("SIGTERM", 3)
    assert "after step 3 of 9 of stage train" in str(found)
    assert [path.name for path in tmp_path.iterdir()] == ["STOPPED"]


def test_a_place_with_another_limit_is_told_at_once() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    pulse = Pulse()
    with pulse.told(writer):
        os.read(reader, 1 << 12)
        os.set_blocking(reader, False)
        pulse.at("saving")
        pulse.at("step 1", guarded=True)
        told = json.loads(os.read(reader, 1 << 12).splitlines()[0])
    os.close(writer)
    os.close(reader)
    assert (told["place"], told["guarded"], told["count"]) == ("step 1", True, 2)
