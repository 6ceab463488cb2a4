"""The trials of the campaign: each runs, is hurt, goes on, and says what was wrong with the outcome."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.engine import Result, Setting, ranks, result, wrong_with
from tests.faults.kit import Bench, adapters_equal, audited, events, last_losses, none_left
from tests.faults.outcome import Outcome

EVERY = 2
# What counts as being there, and the how manieth time.
POINTS = {
    "first step": ("forward", 1),
    "forward": ("forward", 5),
    "optimizer": ("optimizer", 5),
    "save": ("save", 20),
    "evaluation": ("evaluation", 2),
}
MS_REMOUNT, MS_RDONLY = 32, 1


def straight(bench: Bench, name: str, **sections: Mapping[str, Any]) -> Path:
    """The folder of a run that nothing happened to, made once for each process of the campaign."""
    folder = bench.root / "straight" / f"{name}-{os.getpid()}"
    if not (folder / "run" / "DONE").exists():
        bench.recipe(folder, **sections)
        code, err = bench.run(folder)
        assert code == 0, err
    return folder


def alike(bench: Bench, setting: Setting) -> Result:
    """What a training that nothing happened to comes to, made once for each process of the campaign."""
    folder = bench.root / "straight" / f"{os.getpid()}-{hash(setting)}"
    if not (folder / "result.json").exists():
        codes = ranks(folder, setting)
        assert not any(codes), (folder / "rank-0.err").read_text()
    return result(folder)


def finished(
    folder: Path, setting: Setting, like: Result, *, exact: bool = True, most_lost: int
) -> Outcome:
    """Lets a trial of the training loop go on to its end."""
    codes = ranks(folder, setting)
    if any(codes):
        return Outcome(f"the resume ended with {codes}: {_last_words(folder)}")
    return wrong_with(folder, like, exact=exact, most_lost=most_lost)


def _last_words(folder: Path) -> str:
    return (folder / "rank-0.err").read_text()[-300:]


def goes_on(bench: Bench, folder: Path, like: Path) -> Outcome:
    """Runs to the end, to the same bits as `like`."""
    code, err = bench.run(folder)
    again = lost(folder)
    if code:
        return Outcome(f"the resume ended with {code}: {err[-300:]}", again)
    if not audited(folder):
        return Outcome("the ledger does not prove exactly once", again)
    if not adapters_equal(folder, like):
        return Outcome("another result than without the fault", again)
    wanted, found = last_losses(like), last_losses(folder)
    if any(found[step] != wanted[step] for step in found):
        return Outcome("other losses than without the fault", again)
    return Outcome("" if none_left(folder) else "processes were left", again)


def lost(folder: Path) -> int:
    """Steps that had to be done again, the most of all resumes."""
    return max((int(event["lost_steps"]) for event in events(folder, "resumed")), default=0)


def kill(bench: Bench, folder: Path, seed: int) -> Outcome:
    """SIGKILL at a seeded operation on a checkpoint, or at a seeded moment; then a resume."""
    chance = random.Random(f"kill {seed}")
    setting = Setting(
        world=1 + (seed % 10 == 0), beside=chance.random() < 0.3, stream=seed % 3 == 0,
        workers=2 * (seed % 2),
    )  # fmt: skip
    like = alike(bench, replace(setting, workers=0))
    if chance.random() < 0.7:
        nth = chance.randint(1, 110)
        codes = ranks(folder, setting, {"point": "save", "nth": nth, "act": "SIGKILL", "rank": 0})
    else:
        delay = chance.uniform(0.0, 1.5)

        def later(pids: Sequence[int]) -> None:
            until = time.monotonic() + 60
            while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(delay)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

        codes = ranks(folder, setting, meanwhile=later)
    if -signal.SIGKILL not in codes and any(codes):
        return Outcome(f"ended with {codes}")
    (folder / "result.json").unlink(missing_ok=True)
    return finished(folder, setting, like, most_lost=_interval(setting))


def _interval(setting: Setting) -> int:
    """The most steps that a kill may cost: what is written in the background may not be on disk yet."""
    return EVERY * (2 if setting.beside else 1)


def stop_ranks(bench: Bench, folder: Path, case: tuple[str, str, str]) -> Outcome:
    """A signal to one of two ranks, or to both, at a point of training; then a resume."""
    name, to, point = case
    setting = Setting(world=2)
    like = alike(bench, setting)
    where, nth = POINTS[point]
    fault: dict[str, Any] = {"point": where, "nth": nth, "act": name, "rank": 0 if where == "save" else 1}
    if to == "all":
        fault["to"] = "all"
    codes = ranks(folder, setting, fault)
    if codes != [75, 75]:
        return Outcome(f"ended with {codes}: {_last_words(folder)}")
    return finished(folder, setting, like, most_lost=0)


def stop(bench: Bench, folder: Path, case: tuple[str, str, int]) -> Outcome:
    """A signal to `tlscale run` at a point of training; then the same command again."""
    name, point, world = case
    hardware = {"processes": world}
    like = straight(bench, f"world-{world}-validated", hardware=hardware, **_validated(bench))
    bench.recipe(folder, hardware=hardware, **_validated(bench))
    where, nth = POINTS[point]
    fault: dict[str, Any] = {"point": where, "nth": nth, "act": name, "rank": 0, "to": "launcher"}
    started = time.monotonic()
    # signals find the ranks by their parent, which a warm start changes
    code, err = bench.run(folder, fault=fault, cold=world > 1, seconds=300.0)
    seconds = time.monotonic() - started
    wanted = 130 if name == "SIGINT" else 75
    if code != wanted:
        return Outcome(f"ended with {code}, not {wanted}, after {seconds:.0f} s: {err[-300:]}")
    marker = json.loads((folder / "run" / "STOPPED").read_text())
    if not none_left(folder):
        return Outcome("processes were left")
    outcome = goes_on(bench, folder, like)
    if outcome.lost and not outcome.wrong:
        return replace(outcome, wrong=f"steps lost after a graceful stop at step {marker['step']}")
    return outcome


def _validated(bench: Bench) -> dict[str, Any]:
    columns = {"path": str(bench.root / "rows.jsonl"), "prompt": "prompt", "completion": "completion"}
    return {"data": {"validation": {**columns, "limit": 4}}, "train": {"eval_steps": 3}}


def hang(bench: Bench, folder: Path, case: tuple[str, str, int, int]) -> Outcome:
    """A rank that falls silent is named, with its stack, and the job ends."""
    act, point, rank, world = case
    bench.recipe(
        folder, hardware={"processes": world}, train={"hang_timeout": 4.0, "num_train_epochs": 400}
    )
    # by then the watchdogs have heard of enough steps to know how long one takes
    fault = {"point": point, "nth": 400, "act": act, "rank": rank}
    code, err = bench.run(folder, fault=fault)
    gone, over, failed = none_left(folder), time.time(), folder / "run" / "FAILED"
    if not (folder / "when").exists():
        return Outcome(f"the fault did not happen; ended with {code}: {err[-300:]}")
    silent, said = float((folder / "when").read_text()), failed.read_text() if failed.is_file() else ""
    if code == 124 or f"rank {rank} hangs" not in said:
        return Outcome(f"ended with {code}, FAILED says {said[:300]!r}, {err[-300:]}", ended=over - silent)
    wrong = "no stack" if "File " not in said else ""
    wrong = wrong if gone else "processes were left"
    return Outcome(wrong, named=failed.stat().st_mtime - silent, ended=over - silent)


def exact(bench: Bench, folder: Path, case: tuple[int, int, int, bool, int, bool]) -> Outcome:
    """A kill in one epoch or the other, and a resume with the same number of processes: equal bits.

    They are those of a run without helpers. With accumulation, rows are grouped by length too.
    """
    world, accumulation, workers, packing, epoch, stream = case
    grouped = accumulation > 1
    setting = Setting(world, accumulation, packing, grouped, stream=stream, workers=workers)
    like = alike(bench, replace(setting, workers=0))
    steps = len(like.losses)
    at = 1 + (steps // 4 if epoch == 1 else 3 * steps // 4)
    codes = ranks(folder, setting, {"point": "optimizer", "nth": at, "act": "SIGKILL", "rank": world - 1})
    if -signal.SIGKILL not in codes:
        return Outcome(f"the kill at step {at} of {steps} did not happen")
    return finished(folder, setting, like, most_lost=_interval(setting))


def move(bench: Bench, folder: Path, case: tuple[Setting, Setting]) -> Outcome:
    """A stop, and a resume on another number of processes or another backend."""
    before, after = case
    like = alike(bench, Setting(dropout=0.0))
    codes = ranks(folder, before, {"point": "optimizer", "nth": 5, "act": "SIGTERM", "rank": 0})
    if set(codes) != {75}:
        return Outcome(f"ended with {codes}: {_last_words(folder)}")
    return finished(folder, after, like, exact=False, most_lost=0)


def disk(bench: Bench, folder: Path, case: str) -> Outcome:
    """A disk that is full, read-only or lies; then a resume."""
    like = straight(bench, "plain")
    bench.recipe(folder)
    if case in HURT:
        bench.run(folder, fault={"point": "save", "nth": 120, "act": "SIGKILL"})
        HURT[case](sorted((folder / "run" / "checkpoints" / "train").glob("step-*")))
        return goes_on(bench, folder, like)
    place = folder / "run" / "checkpoints"
    if case == "full, and training goes on":
        bench.recipe(folder, train={"on_save_failure": "continue"})
        like = straight(bench, "patient", train={"on_save_failure": "continue"})
    size = {"full at the first save": 16, "read-only": 4096, "vanished folder": 4096}.get(case, 60)
    return _on_small_disk(bench, folder, place, case, size, like)


def _on_small_disk(
    bench: Bench, folder: Path, place: Path, case: str, kilobytes: int, like: Path
) -> Outcome:
    process = bench.start(folder, "run", "recipe.yaml", "--offline", "--dry-run")
    process.communicate()
    mounted = folder / "disk"
    mounted.mkdir()
    _mount(mounted, f"size={kilobytes}k")
    try:
        code = _run_on(bench, folder, mounted, case)
        if case == "full, and training goes on":
            if code:
                return Outcome(f"ended with {code}")
        elif code == 0:
            return Outcome("the fault did not show")
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)
    return Outcome() if case == "full, and training goes on" else goes_on(bench, folder, like)


def _run_on(bench: Bench, folder: Path, mounted: Path, case: str) -> int:
    """A run whose checkpoints lie on the small disk; they are carried over when it is over."""
    link = folder / "run" / "checkpoints"
    plan = bench.start(
        folder, "run", "recipe.yaml", "--offline", fault={"point": "none", "nth": 0, "act": ""}
    )
    until = time.monotonic() + 60
    while not (folder / "run" / "plan.json").exists() and time.monotonic() < until:
        time.sleep(0.002)
    link.symlink_to(mounted)
    if case in ("read-only", "vanished folder"):
        while not list(mounted.glob("train/step-*")) and plan.poll() is None:
            time.sleep(0.002)
        if case == "read-only":
            _remount_read_only(mounted)
        else:
            shutil.rmtree(mounted / "train", ignore_errors=True)
            subprocess.run(["umount", "-l", str(mounted)], check=True)
            _mount(mounted, "size=16k")
    plan.communicate(timeout=120)
    kept = folder / "kept"
    shutil.copytree(mounted, kept)
    link.unlink()
    shutil.copytree(kept, link)
    return plan.returncode


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def _remount_read_only(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"", str(folder).encode(), None, MS_REMOUNT | MS_RDONLY, None) == 0


def _truncate(folders: list[Path], name: str = "weights.safetensors") -> None:
    path = folders[-1] / name
    path.write_bytes(path.read_bytes()[:100])


def _flip(folders: list[Path], name: str) -> None:
    path = folders[-1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def _say(folders: list[Path], text: str) -> None:
    (folders[-1] / "manifest.json").write_text(text)


def _stranger(folders: list[Path]) -> None:
    strange = folders[-1].with_name("step-999999")
    shutil.copytree(folders[-1], strange)
    (strange / "manifest.json").write_text('{"key": "x", "files": {"../../x": {"size": 1, "sha256": "0"}}}')


def _all(folders: list[Path]) -> None:
    for one in folders:
        _flip([one], "weights.safetensors")


HURT = {
    "truncated weights": lambda found: _truncate(found),
    "truncated state": lambda found: _truncate(found, "state.pt"),
    "flipped bit in the weights": lambda found: _flip(found, "weights.safetensors"),
    "flipped bit in the state": lambda found: _flip(found, "state.pt"),
    "missing manifest": lambda found: (found[-1] / "manifest.json").unlink(),
    "garbled manifest": lambda found: _say(found, "{"),
    "missing part": lambda found: (found[-1] / "state.pt").unlink(),
    "vanished newest checkpoint": lambda found: shutil.rmtree(found[-1]),
    "checkpoint of another plan": _stranger,
    "every checkpoint damaged": _all,
}
SMALL = (
    "full at the first save",
    "full at a later save",
    "full, and training goes on",
    "read-only",
    "vanished folder",
)
