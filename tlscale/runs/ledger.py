"""What training consumed: which examples, in which step, on which rank; and the proof of exactly once.

Every rank appends to a file of its own, one for each attempt at a stage. A file begins with one line of
JSON; then comes one record for each step: a header, the indices of the examples as 32-bit numbers, and a
checksum. A record cut short by a kill, and all after it, doesn't count. An attempt that begins after step
N makes void what earlier attempts did after N: their work was lost with them.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tlscale.runs.record import sync_folder, writing

HEAD = struct.Struct("<IIII")  # step, epoch, number of indices, checksum of these three and the indices
VERSION = 1


@dataclass(frozen=True)
class Attempt:
    """What one rank's file says first.

    `examples` is how many the stage trains on, `None` where that isn't known; `total` are rows a step.
    """

    stage: str
    attempt: int
    rank: int
    world: int
    after: int
    examples: int | None
    total: int
    version: int = VERSION


@dataclass(frozen=True)
class Record:
    """One rank's share of one step; `epoch` counts from 0."""

    step: int
    epoch: int
    indices: tuple[int, ...]


class Ledger:
    """Appends one rank's records. Writing never raises; `sync` does, and then nothing is lost but time."""

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        self._path = folder / f"{attempt.attempt:04d}-rank-{attempt.rank}.bin"
        self._waiting = json.dumps(asdict(attempt)).encode() + b"\n"
        self._handle: int | None = None

    def add(self, record: Record) -> None:
        """Notes a step; it is on its way to the disk after this."""
        self._waiting += packed(record)
        try:
            self._write()
        except OSError:
            return  # a full disk: the rest is kept, and `sync` reports it if it stays full

    def sync(self) -> None:
        """Waits until all that was noted is on disk.

        Raises:
            WriteError: the system refuses.
        """
        with writing(self._path):
            self._write()
            assert self._handle is not None
            os.fsync(self._handle)

    def close(self) -> None:
        """Writes what it can."""
        with suppress(OSError):
            self._write()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self) -> None:
        if self._handle is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            sync_folder(self._path.parent)
        while self._waiting:
            self._waiting = self._waiting[os.write(self._handle, self._waiting) :]


def packed(record: Record) -> bytes:
    """A record's bytes."""
    body = array("I", record.indices).tobytes()
    head = (record.step, record.epoch, len(record.indices))
    return HEAD.pack(*head, zlib.crc32(body, zlib.crc32(repr(head).encode()))) + body


def read(path: Path) -> tuple[Attempt, list[Record]] | None:
    """One rank's file up to its last whole record; `None` where not even its first line is whole."""
    content = path.read_bytes()
    line, newline, rest = content.partition(b"\n")
    if not newline:
        return None
    attempt = Attempt(**json.loads(line))
    return attempt, list(_records(rest))


def _records(content: bytes) -> Iterator[Record]:
    at = 0
    while at + HEAD.size <= len(content):
        step, epoch, count, check = HEAD.unpack_from(content, at)
        body = content[at + HEAD.size : at + HEAD.size + 4 * count]
        if zlib.crc32(body, zlib.crc32(repr((step, epoch, count)).encode())) != check:
            return
        indices = array("I")
        indices.frombytes(body)
        yield Record(step, epoch, tuple(indices))
        at += HEAD.size + 4 * count


def attempts(folder: Path) -> list[tuple[Attempt, list[Record]]]:
    """All files of a stage, by attempt and rank."""
    found = [read(path) for path in sorted(folder.glob("*-rank-*.bin"))]
    return sorted((f for f in found if f is not None), key=lambda f: (f[0].attempt, f[0].rank))


def next_attempt(folder: Path) -> int:
    """The number of the attempt that begins now, from 1."""
    return 1 + max((int(path.name[:4]) for path in folder.glob("*-rank-*.bin")), default=0)


def last_step(folder: Path) -> int:
    """The last step that any rank took in the newest attempt that took one; 0 without any."""
    steps = [(a.attempt, records[-1].step) for a, records in attempts(folder) if records]
    return max((step for number, step in steps if number == max(steps)[0]), default=0)


@dataclass(frozen=True)
class Audit:
    """What a stage's ledger proves.

    `epochs`: for each epoch how many examples were taken once, more than once, and not at all.
    `repeated` counts steps that were done again because a process ended before they were saved.
    `problems` are the sentences that speak against exactly once; none when it is proven.
    """

    stage: str
    attempts: int
    steps: int
    examples: int
    repeated: int
    epochs: tuple[tuple[int, int, int], ...]
    complete: int
    problems: tuple[str, ...]


def audit(folder: Path, stage: str) -> Audit | None:
    """Checks that every epoch took every example exactly once; `None` without a ledger.

    An epoch that training ended in may have examples left; none may have come twice. Whether a stream was
    at its end isn't known of its last epoch.
    """
    files = attempts(folder)
    if not files:
        return None
    valid, repeated, problems = _effective(files)
    steps = sorted(valid)
    if steps != list(range(1, len(steps) + 1)):
        gone = sorted(set(range(1, (steps or [0])[-1] + 1)) - set(steps))
        problems.append(f"no record of {len(gone):,} steps, the first of them {gone[0]}")
    counts: dict[int, Counter[int]] = {}
    for step in steps:
        for record in valid[step]:
            counts.setdefault(record.epoch, Counter()).update(record.indices)
    counted = files[-1][0].examples
    examples = counted
    if examples is None:
        # a stream has as many as were numbered in it so far
        examples = 1 + max((index for seen in counts.values() for index in seen), default=-1)
    last, epochs, complete = max(counts, default=0), [], 0
    for epoch in sorted(counts):
        seen = counts[epoch]
        twice = sum(1 for times in seen.values() if times > 1)
        missing = examples - len(seen)
        epochs.append((len(seen) - twice, twice, missing))
        complete += not twice and not missing and (counted is not None or epoch != last)
        if twice:
            problems.append(f"epoch {epoch + 1}: {twice:,} examples came more than once")
        if missing and epoch != last:
            problems.append(f"epoch {epoch + 1}: {missing:,} examples never came")
        if any(index >= examples for index in seen):
            problems.append(f"epoch {epoch + 1}: there are examples that the stage doesn't have")
    return Audit(
        stage,
        files[-1][0].attempt,
        len(steps),
        examples,
        repeated,
        tuple(epochs),
        complete,
        tuple(problems),
    )


def _effective(
    files: Sequence[tuple[Attempt, list[Record]]],
) -> tuple[dict[int, list[Record]], int, list[str]]:
    """The records of each step that count, how many steps were done again, and what is wrong."""
    valid: dict[int, list[Record]] = {}
    repeated, problems = 0, []
    for number in sorted({attempt.attempt for attempt, _ in files}):
        group = [(attempt, records) for attempt, records in files if attempt.attempt == number]
        after, world = group[0][0].after, group[0][0].world
        lost = [step for step in valid if step > after]
        repeated += len(lost)
        for step in lost:
            del valid[step]
        taken: dict[int, list[Record]] = {}
        for _, records in group:
            for record in records:
                taken.setdefault(record.step, []).append(record)
        # of the last steps before a kill, some ranks may have told and others not
        whole = {step: shares for step, shares in taken.items() if len(shares) == world}
        later = [step for step in taken if step not in whole]
        if any(step < max(whole, default=0) for step in later):
            problems.append(f"attempt {number}: steps with records of only some ranks")
        valid |= whole
    return valid, repeated, problems
