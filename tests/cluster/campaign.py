"""Runs every scenario on clusters of its own and prints what each cost: `make cluster`.

python -m tests.cluster.campaign [--only WORD ...] [--at-once N]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.kit import cluster, problem
from tests.cluster.outcome import Outcome
from tests.cluster.scenarios import SCENARIOS

HEADINGS = (
    "scenario", "machines", "tries", "steps lost", "repeated", "longest pause", "back after", "orphans",
    "result", "",
)  # fmt: skip


def run(name: str) -> tuple[Outcome, float]:
    """One scenario on a fresh cluster, and how long it took."""
    scenario, machines = SCENARIOS[name]
    names = tuple(f"n{index + 1}" for index in range(machines))
    began = time.monotonic()
    with cluster(names) as up:
        try:
            outcome = scenario(up)
        except (AssertionError, OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
            traceback.print_exc()
            outcome = Outcome(0, 0, problems=[str(error).partition("\n")[0][:200]])
    return outcome, time.monotonic() - began


def row(name: str, outcome: Outcome) -> tuple[str, ...]:
    """An outcome as cells."""
    cost = (str(outcome.tries), str(outcome.lost), str(outcome.repeated))
    pause, back = (
        f"{seconds:.0f} s" if seconds is not None else "-" for seconds in (outcome.pause, outcome.came_back)
    )
    said = "; ".join(outcome.problems) or outcome.notes
    word = "ok" if outcome.passed else "FAILED"
    machines = str(SCENARIOS[name][1])
    return (name, machines, *cost, pause, back, str(len(outcome.orphans)), word, said)


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as Markdown."""
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |" for cells in rows)


def main() -> int:
    """Prints the table; the exit code is 1 when a scenario failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="scenarios whose name has one of these in it"
    )
    parser.add_argument("--at-once", type=int, default=1, help="so many clusters at the same time")
    arguments = parser.parse_args()
    reason = problem()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    chosen = [name for name in SCENARIOS if any(word in name for word in arguments.only)]
    passed = True
    print(table([HEADINGS, tuple("---" for _ in HEADINGS)]), flush=True)
    with ThreadPoolExecutor(arguments.at_once) as pool:
        for name, (outcome, seconds) in zip(chosen, pool.map(run, chosen), strict=True):
            passed = passed and outcome.passed
            cells = row(name, outcome)
            print(table([cells]), flush=True)
            print(f"{cells[-2]:<7} {seconds:6.0f} s  {name}: {cells[-1]}", file=sys.stderr, flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
