"""The fault campaign: `python -m tests.faults.campaign` runs it in full and prints a table.

Every trial has real processes that are really killed, signalled, frozen or starved of disk. Trials are
numbered and seeded: `--only kill:17` repeats one; with `--log` a campaign that was cut off goes on.
Processes are forked from one that has imported all they need, so that a trial takes seconds: the training
loop alone where a rank is hurt, and `tlscale run`, with `accelerate launch` where there are two ranks,
where the launcher, the watchdog or the disk matter.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.engine import Setting
from tests.faults.kit import Bench, bench
from tests.faults.outcome import Outcome
from tlscale.runs.record import append_line, read_lines

SIGNALS = ("SIGUSR1", "SIGTERM", "SIGINT")


@dataclass(frozen=True)
class Trial:
    """One numbered trial."""

    name: str
    case: Any
    run: Callable[[Bench, Path], Outcome]

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class Line:
    """How a trial ended, as one line of the log."""

    name: str
    case: str
    seconds: float
    outcome: Outcome


def _trials(kind: str, cases: Sequence[Any], run: Callable[..., Any]) -> list[Trial]:
    def on(case: Any) -> Callable[[Bench, Path], Outcome]:
        return lambda bench, folder: run(bench, folder, case)

    return [Trial(f"{kind}:{number}", case, on(case)) for number, case in enumerate(cases, start=1)]


def everything() -> dict[str, list[Trial]]:
    """All trials of the campaign, by kind."""
    hangs = [
        ("SIGSTOP", "forward", 1, 2), ("SIGSTOP", "forward", 0, 2), ("SIGSTOP", "forward", 0, 1),
        ("hold", "forward", 1, 2), ("hold", "optimizer", 0, 1), ("sleep", "forward", 1, 2),
    ]  # fmt: skip
    two = (False, True)
    one, both, three = (Setting(world, dropout=0.0) for world in (1, 2, 3))
    sharded = Setting(2, dropout=0.0, sharding="fsdp2")
    moves = [(one, both), (both, one), (both, three), (three, one), (both, sharded), (sharded, one)]
    return {
        "kill": _trials("kill", range(1, 201), trials.kill),
        "signal": _trials(
            "signal", list(itertools.product(SIGNALS, ("all", "one"), trials.POINTS)), trials.stop_ranks
        ),
        "launcher": _trials(
            "launcher", list(itertools.product(SIGNALS, trials.POINTS, (1, 2))), trials.stop
        ),
        "hang": _trials("hang", hangs, trials.hang),
        "disk": _trials("disk", [*trials.HURT, *trials.SMALL], trials.disk),
        "exact": _trials(
            "exact", list(itertools.product((1, 2), (1, 3), (0, 2), two, (1, 2), two)), trials.exact
        ),
        "world": _trials("world", moves, trials.move),
    }


def one(on: Bench, trial: Trial) -> Line:
    """Runs a trial and says what went wrong as it does; its folder stays then."""
    folder = on.root / "trials" / trial.name.replace(":", "-")
    started = time.monotonic()
    try:
        outcome = trial.run(on, folder)
    except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        outcome = Outcome(f"{type(error).__name__}: {error}")
    if outcome.wrong:
        print(f"    {trial.name} {trial.case}: {outcome.wrong}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return Line(trial.name, str(trial.case), round(time.monotonic() - started, 2), outcome)


def carry_out(on: Bench, chosen: Sequence[Trial], jobs: int, log: Path) -> None:
    """Runs trials in so many processes at once; threads would not survive the forks of a trial."""
    pids = []
    for index in range(jobs):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            for trial in chosen[index::jobs]:
                append_line(log, asdict(one(on, trial)))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)


def read_log(log: Path) -> dict[str, Line]:
    """The trials that were done, by name, each as it ended last."""
    rows = list(read_lines(log))
    return {row["name"]: Line(**{**row, "outcome": Outcome(**row["outcome"])}) for row in rows}


def table(done: Sequence[Line]) -> str:
    """What a log comes to, kind by kind."""
    head = ("faults", "trials", "right", "wrong", "most steps lost", "longest s")
    rows = []
    for kind in dict.fromkeys(line.name.partition(":")[0] for line in done):
        mine = [line for line in done if line.name.partition(":")[0] == kind]
        wrong = sum(1 for line in mine if line.outcome.wrong)
        lost, longest = max(line.outcome.lost for line in mine), max(line.seconds for line in mine)
        rows.append((kind, len(mine), len(mine) - wrong, wrong, lost, f"{longest:.0f}"))
    said = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    said += [f"| {' | '.join(map(str, row))} |" for row in rows]
    hangs = [line for line in done if line.outcome.named is not None]
    for line in hangs:
        named, ended = line.outcome.named or 0.0, line.outcome.ended or 0.0
        said.append(f"{line.name} {line.case}: named after {named:.1f} s, ended after {ended:.1f} s")
    said += [f"{line.name} {line.case}: {line.outcome.wrong}" for line in done if line.outcome.wrong]
    return "\n".join(said)


def warm_up() -> None:
    """Imports what the processes of trials need, before they are forked."""
    import tests.faults.rows
    import tlscale.data.packing
    import tlscale.engine.backends.fsdp2
    import tlscale.engine.backends.replicated

    assert all((tests, tlscale))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 when any trial went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a kind, or one trial such as kill:17")
    parser.add_argument("--every", type=int, default=1, help="one trial of so many")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--log", type=Path, help="goes on with what this file says is done; kept after")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        log = (given.log or Path(root) / "log.jsonl").absolute()
        done = read_log(log)
        chosen = [
            trial
            for kind, found in everything().items()
            for trial in [t for t in found if not given.only or {kind, t.name} & set(given.only)][
                :: given.every
            ]
        ]
        waiting = [trial for trial in chosen if trial.name not in done]
        print(f"{len(chosen)} trials, {len(chosen) - len(waiting)} of them done before", flush=True)
        if waiting:
            warm_up()
            with bench(Path(root) / "bench") as on:
                carry_out(on, waiting, given.jobs, log)
        done = read_log(log)
    lines = [done[trial.name] for trial in chosen if trial.name in done]
    print(f"\n{table(lines)}\n\n{time.monotonic() - began:.0f} s in all")
    return 1 if len(lines) < len(chosen) or any(line.outcome.wrong for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
