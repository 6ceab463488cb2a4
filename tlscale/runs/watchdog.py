"""A process beside each rank that ends it when it hangs, and says which rank was silent and where.

`python -m tlscale.runs.watchdog` reads the rank's signs of life from stdin and publishes them in the run
directory, where the watchdogs of other ranks and machines read them. It is a process of its own because a
process that is stopped, or whose interpreter's lock is held, can't watch itself. It ends with its rank.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tlscale.errors import WriteError
from tlscale.runs.hang import Seen, Shown, reason_for
from tlscale.runs.layout import RunLayout
from tlscale.runs.pulse import SECONDS
from tlscale.runs.record import claim

# Long enough for every other watchdog to publish twice.
OBSERVED_SECONDS = 3.0
STACK_SECONDS = 2.0
# A watchdog that slept for so long was itself stopped, with its whole job, and knows nothing of that time.
SUSPENDED_SECONDS = 10.0
# By then a rank has noticed that another was ended: its exchanges fail.
NOTICED_SECONDS = 15.0
FRAMES = 12


class Watchdog:
    """Watches the process `pid`, which is `rank` of the run in `layout`."""

    def __init__(self, layout: RunLayout, rank: int, pid: int, limit: float) -> None:
        self._layout, self._rank, self._pid, self._limit = layout, rank, pid, limit
        self._host = socket.gethostname()
        self._number = 0
        self._frame = ""
        self._suspected: tuple[float, dict[int, int]] | None = None
        self.seen = Seen.start(time.monotonic())

    def tick(self, now: float) -> str | None:
        """Publishes what is known and looks for a hang; the sentence to end the rank with, if any."""
        stopped = _state(self._pid) in "Tt"
        quiet = self.seen.quiet(now, self._limit, stopped=stopped)
        stuck = self.seen.stuck(now, self._limit)
        if quiet or stuck:
            self._frame = self._frame or self._stack()
        else:
            self._frame, self._suspected = "", None
        self._publish(now)
        if quiet:
            how = "it is stopped (SIGSTOP)" if stopped else "its interpreter is held or frozen"
            return self._sentence(self._shown(now), now - self.seen.heard_at, f"no sign of life; {how}")
        return self._suspects(now) if stuck else None

    def _suspects(self, now: float) -> str | None:
        """Which rank the others wait for, once all had the time to show where they are."""
        shown = self._others()
        if self._suspected is None:
            self._suspected = now, {one.rank: one.number for one in shown}
        since, numbers = self._suspected
        if now - since < OBSERVED_SECONDS:
            return None
        news = {one.rank for one in shown if one.number != numbers.get(one.rank)}
        found = reason_for(
            self._shown(now), [one for one in shown if one.rank != self._rank], news, self._limit
        )
        if found is None:
            return None
        rank, seconds, why = found
        return self._sentence(rank, seconds, why)

    def _shown(self, now: float) -> Shown:
        seen = self.seen
        return Shown(
            rank=self._rank, host=self._host, pid=self._pid, number=self._number, count=seen.count,
            place=seen.place, guarded=seen.guarded, quiet=now - seen.heard_at, still=now - seen.moved_at,
            frame=self._frame,
        )  # fmt: skip

    def _publish(self, now: float) -> None:
        self._number += 1
        path = self._layout.pulse(self._rank)
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_text(self._shown(now).to_json(), encoding="utf-8")
            partial.replace(path)
        except OSError:
            return  # a full disk; the own rank is watched all the same

    def _others(self) -> list[Shown]:
        found = []
        for path in sorted(self._layout.pulses.glob("rank-*.json")):
            try:
                found.append(Shown.from_json(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                continue
        return found

    def _stack(self) -> str:
        """Has the rank write where it is, and gives its innermost frame."""
        path = self._layout.stack(self._rank)
        before = _size(path)
        os.kill(self._pid, signal.SIGUSR2)
        # what is stopped must run for the moment that it takes
        os.kill(self._pid, signal.SIGCONT)
        until = time.monotonic() + STACK_SECONDS
        while time.monotonic() < until and _size(path) == before:
            time.sleep(0.05)
        time.sleep(0.05)
        frames = own_frames(path)
        return frames[0].strip() if frames else "unknown"

    def _sentence(self, who: Shown, seconds: float, why: str) -> str:
        frames = own_frames(self._layout.stack(who.rank))
        stack = (
            "".join(f"\n  {line.strip()}" for line in frames[:FRAMES]) or f"\n  {who.frame or 'unknown'}"
        )
        return (
            f"rank {who.rank} hangs (process {who.pid} on {who.host}) for {seconds:.0f} s, in {who.place}: "
            f"{why}. The run was ended (train.hang_timeout={self._limit:g}); the same command goes on from "
            f"the last checkpoint. Where rank {who.rank} was, innermost first:{stack}\n"
        )


def own_frames(path: Path) -> list[str]:
    """The frames of the training thread in the last dump of `path`, innermost first."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    starts = [index for index, line in enumerate(lines) if line.startswith(("Current thread", "Thread "))]
    if not starts:
        return []
    # faulthandler prints the thread that runs Python's main program last
    return [line for line in lines[starts[-1] + 1 :] if line.startswith("  File ")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "?"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def main(argv: Sequence[str] | None = None) -> int:
    """Watches until the rank ends, or ends it."""
    parser = argparse.ArgumentParser(prog="python -m tlscale.runs.watchdog", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True)
    given = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    try:
        rank = os.pidfd_open(given.pid)
    except ProcessLookupError:
        return 0
    layout = RunLayout(given.run_dir)
    watchdog = Watchdog(layout, given.rank, given.pid, given.limit)
    os.set_blocking(0, False)
    poller = select.poll()
    poller.register(rank, select.POLLIN)
    before, due, started = time.monotonic(), 0.0, time.time()
    while not poller.poll(SECONDS * 500):
        told = _read()
        now = time.monotonic()
        if told == b"":
            return 0
        if now - before > SUSPENDED_SECONDS:
            watchdog.seen = Seen.start(now)
        before = now
        if told is not None:
            watchdog.seen.hear(json.loads(told.splitlines()[-1]), now)
        if now < due:
            continue
        due = now + SECONDS
        if _others_failed(layout, started):
            os.kill(given.pid, signal.SIGKILL)
            return 1
        sentence = watchdog.tick(now)
        if sentence is not None:
            _end(layout, given.pid, sentence)
            return 1
    return 0


def _others_failed(layout: RunLayout, started: float) -> bool:
    """Whether another rank hung and was ended so long ago that this one should have noticed."""
    try:
        since = layout.failed.stat().st_mtime
        hung = " hangs (" in layout.failed.read_text(encoding="utf-8")
    except OSError:
        return False
    return hung and since > started and time.time() - since > NOTICED_SECONDS


def _read() -> bytes | None:
    """What the rank told since the last time; nothing at all, or b"" once it has closed the pipe."""
    try:
        told = os.read(0, 1 << 16)
    except BlockingIOError:
        return None
    while told and not told.endswith(b"\n"):
        time.sleep(0.01)
        told += os.read(0, 1 << 16)
    return told


def _end(layout: RunLayout, pid: int, sentence: str) -> None:
    """Says why, unless another watchdog did, and ends the rank."""
    print(f"\n{sentence}", file=sys.stderr, flush=True)
    try:
        claim(layout.failed, sentence)
    except WriteError as error:
        print(error, file=sys.stderr)
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
