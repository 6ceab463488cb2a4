"""Run by batch scripts on the first machine of a job: begins a try, and judges the machines' examinations.

python -m tlscale.launching.attempt begin RUN --machines=n1,n2 --tries-without-progress=3
python -m tlscale.launching.attempt judge RUN --machines=n1,n2

`begin` ends with 0 to go on, 10 when the run is done already, 1 when it is given up. `judge` prints the
machines to leave out, with commas between them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tlscale.errors import ExitCode, TlscaleError
from tlscale.launching.fitness import judged, read_all
from tlscale.runs import attempts
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_text

DONE_BEFORE = 10


def main(argv: list[str] | None = None) -> int:
    """Runs one of the two; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tlscale.launching.attempt", description=__doc__)
    parser.add_argument("action", choices=("begin", "judge"))
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--machines", required=True)
    parser.add_argument("--tries-without-progress", type=int, default=3)
    arguments = parser.parse_args(argv)
    layout, machines = RunLayout(arguments.run_dir), arguments.machines.split(",")
    name = os.environ["TLSCALE_TRY"]
    try:
        if arguments.action == "judge":
            return judge(layout, name, machines)
        return begin(layout, name, machines, arguments.tries_without_progress)
    except TlscaleError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)


def begin(layout: RunLayout, name: str, machines: list[str], limit: int) -> int:
    """Makes this the newest try, unless there is nothing left to do or no use in trying."""
    if layout.done.is_file():
        return DONE_BEFORE
    tries = attempts.begin(layout, name, machines)
    stages, scores, steps = tries[-1].reached
    print(
        f"try {len(tries)} ({name}) on {', '.join(machines)}: {stages} stages done, {scores} scores, "
        f"{steps} steps saved" + (f"; before: {tries[-1].after}" if tries[-1].after else ""),
        flush=True,
    )
    if attempts.stuck(tries, limit):
        said = f"{limit} tries in a row got no further; the last: {tries[-1].after}"
        write_text(layout.failed, f"{said}\n")
        print(said, file=sys.stderr)
        return int(ExitCode.RUN_FAILED)
    return int(ExitCode.OK)


def judge(layout: RunLayout, name: str, machines: list[str]) -> int:
    """Prints the machines that are not fit for the run, and writes down why."""
    bad = judged(read_all(layout.examinations(name)), machines)
    for machine, said in bad.items():
        print(f"{machine} is left out: {'; '.join(said)}", file=sys.stderr)
    if bad:
        append_line(
            layout.attempts,
            {"time": round(time.time(), 3), "event": "unfit", "try": name, "machines": bad},
        )
    print(",".join(bad))
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
