"""The tries of a run on a cluster: which is the newest, what each reached, and why it ended.

A job that is queued again starts the same run another time. The newest try is named in a file before it
begins, and processes of an earlier one that still live somewhere, on a machine that was cut off and came
back, must find that out and leave.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import event, read_lines, write_text
from tlscale.runs.result import read_stopped

# the exit code of a process that found another try in its place
SUPERSEDED = 76


@dataclass(frozen=True)
class Attempt:
    """One try: `reached` is how far the run was when it began, `after` why the try before it had ended.

    `unfit` are machines that did not pass the examination before it.
    """

    name: str
    began: float
    machines: tuple[str, ...]
    reached: tuple[int, int, int]
    after: str | None
    ended: float | None = None
    code: int | None = None
    unfit: tuple[str, ...] = ()


def reached(layout: RunLayout) -> tuple[int, int, int]:
    """How far a run is: stages that left a result, scores on file, steps in the newest checkpoint.

    Only its small files are looked at; a checkpoint counts when its manifest is there.
    """
    stages = len(list(layout.artifact("*").parent.glob(f"*/{MANIFEST}")))
    scores = sum(1 for _ in read_lines(layout.measurements))
    found = layout.checkpoints("*").parent.glob(f"*/step-*/{MANIFEST}")
    steps = [int(path.parent.name.rpartition("-")[2]) for path in found]
    return stages, scores, max(steps, default=0)


def attempts(layout: RunLayout) -> tuple[Attempt, ...]:
    """The tries so far, oldest first."""
    found: dict[str, Attempt] = {}
    for row in read_lines(layout.attempts):
        name = row["try"]
        if row["event"] == "begin":
            reach = tuple(row["reached"])
            found[name] = Attempt(name, row["time"], tuple(row["machines"]), reach, row["after"])
        elif row["event"] == "end" and name in found:
            found[name] = replace(found[name], ended=row["time"], code=row["code"])
        elif row["event"] == "unfit" and name in found:
            found[name] = replace(found[name], unfit=tuple(row["machines"]))
    return tuple(found.values())


def begin(layout: RunLayout, name: str, machines: Sequence[str]) -> tuple[Attempt, ...]:
    """Makes `name` the newest try, and takes away what earlier ones asked for and said; gives all tries."""
    after = why_ended(layout)
    for marker in (layout.stop, layout.stopped, layout.failed):
        marker.unlink(missing_ok=True)
    write_text(layout.attempt, f"{name}\n")
    event(
        layout.attempts,
        "begin",
        **{"try": name},
        machines=list(machines),
        reached=reached(layout),
        after=after,
    )
    return attempts(layout)


def newest(layout: RunLayout) -> str | None:
    """The name of the newest try; `None` for a run that no cluster job began."""
    return layout.attempt.read_text(encoding="ascii").strip() if layout.attempt.is_file() else None


def leave_to(layout: RunLayout, name: str | None) -> None:
    """Ends this process at once when another try than `name` has begun; does nothing without a name.

    Nothing is cleaned up, since all that could be is no longer this process's.
    """
    now = newest(layout) if name is not None else None
    if now is not None and now != name:
        print(f"try {now} has begun; this process of try {name} ends", file=sys.stderr, flush=True)
        os._exit(SUPERSEDED)


def why_ended(layout: RunLayout) -> str | None:
    """Why the newest try ended, in a few words; `None` where there was none."""
    before = attempts(layout)
    if not before:
        return None
    if layout.failed.is_file():
        return layout.failed.read_text(encoding="utf-8").strip().partition("\n")[0]
    asked = layout.stop.read_text(encoding="utf-8").strip() if layout.stop.is_file() else ""
    stopped = read_stopped(layout)
    if stopped is not None:
        return asked or stopped.reason
    bad = unfit(layout, before[-1].name)
    if bad:
        return "; ".join(f"{machine}: {', '.join(said)}" for machine, said in bad.items())
    if before[-1].code is None:
        return "a machine was lost"
    return f"a process ended with code {before[-1].code}"


def unfit(layout: RunLayout, name: str) -> dict[str, tuple[str, ...]]:
    """The machines that did not pass the examination before a try, and why."""
    for row in read_lines(layout.attempts):
        if row["event"] == "unfit" and row["try"] == name:
            return {machine: tuple(said) for machine, said in row["machines"].items()}
    return {}


def stuck(tries: Sequence[Attempt], limit: int) -> bool:
    """Whether the last `limit` tries all began where the newest one begins: nothing was gained by them.

    A try that found machines unfit which no earlier one had named doesn't count: the next has others.
    """
    named, counted = set[str](), list[Attempt]()
    for one in tries[:-1]:
        if set(one.unfit) <= named:
            counted.append(one)
        named.update(one.unfit)
    last = [*counted, *tries[-1:]][-limit - 1 :]
    return len(last) == limit + 1 and all(one.reached == last[-1].reached for one in last)
