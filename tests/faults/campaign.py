"""The fault campaign: `python -m tests.faults.campaign` runs it in full and prints a table.

Every trial has real processes that are really killed, signalled, frozen or starved of disk. Trials are
numbered and seeded: `--only kill:17` repeats one. Processes are forked from one that has imported all they
need, so that a trial takes seconds: the training loop alone where a rank is hurt, and `tlscale run`, with
`accelerate launch` where there are two ranks, where the launcher, the watchdog or the disk matter.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
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

SIGNALS = ("SIGUSR1", "SIGTERM", "SIGINT")


@dataclass(frozen=True)
class Trial:
    """One numbered trial; `run` gives what was wrong, or nothing."""

    name: str
    case: Any
    run: Callable[[Bench, Path], str]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    wrong: str
    seconds: float


def _trials(kind: str, cases: Sequence[Any], run: Callable[..., Any]) -> list[Trial]:
    return [
        Trial(f"{kind}:{number}", case, lambda b, folder, case=case: run(b, folder, case))  # type: ignore[misc]
        for number, case in enumerate(cases, start=1)
    ]


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
        "hang": _trials("hang", hangs, _hang),
        "disk": _trials("disk", [*trials.HURT, *trials.SMALL], trials.disk),
        "exact": _trials(
            "exact", list(itertools.product((1, 2), (1, 3), two, two, (1, 2), two)), trials.exact
        ),
        "world": _trials("world", moves, trials.move),
    }


def _hang(on: Bench, folder: Path, case: Any) -> str:
    wrong, seconds = trials.hang(on, folder, case)
    print(f"    {case}: ended {seconds:.0f} s after it fell silent", flush=True)
    return wrong


def one(on: Bench, trial: Trial) -> Outcome:
    """Runs a trial and says what went wrong as it does; its folder stays then."""
    folder = on.root / "trials" / trial.name.replace(":", "-")
    started = time.monotonic()
    try:
        wrong = trial.run(on, folder)
    except (AssertionError, OSError, ValueError, KeyError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        print(f"    {trial.name} {trial.case}: {wrong}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(wrong, time.monotonic() - started)


def carry_out(on: Bench, chosen: Sequence[Trial], jobs: int) -> list[Outcome]:
    """Runs trials in so many processes at once; threads would not survive the forks of a trial."""
    pids, files = [], [on.root / f"outcomes-{index}" for index in range(jobs)]
    for index, file in enumerate(files):
        file.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            with file.open("w") as notes:
                for trial in chosen[index::jobs]:
                    notes.write(json.dumps(asdict(one(on, trial))) + "\n")
                    notes.flush()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return [Outcome(**json.loads(line)) for file in files for line in file.read_text().splitlines()]


def warm_up() -> None:
    """Imports what the processes of trials need, before they are forked."""
    import tests.unit.test_engine_loop
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
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warm_up()
    bad, began = 0, time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory(prefix="faults-") as root, bench(Path(root) / "bench") as on:
        for kind, found in everything().items():
            chosen = [t for t in found if not given.only or {kind, t.name} & set(given.only)][
                :: given.every
            ]
            if not chosen:
                continue
            print(f"{kind}: {len(chosen)} trials", flush=True)
            outcomes = carry_out(on, chosen, given.jobs)
            wrong = sum(1 for outcome in outcomes if outcome.wrong)
            bad += wrong
            longest = max(outcome.seconds for outcome in outcomes)
            right = len(outcomes) - wrong
            rows.append(f"| {kind:<8} | {len(outcomes):>6} | {right:>5} | {wrong:>5} | {longest:>9.0f} |")
    print("\n| faults   | trials | right | wrong | longest s |")
    print("| -------- | -----: | ----: | ----: | --------: |")
    print("\n".join(rows))
    print(f"\n{time.monotonic() - began:.0f} s in all")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
