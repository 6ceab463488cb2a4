"""`tlscale init`: a commented recipe to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path

from tlscale.errors import ExitCode, UsageError, WriteError, unknown
from tlscale.recipe.templates import JOBS, render
from tlscale.runs.record import write_text


def init(arguments: argparse.Namespace) -> int:
    """Writes the recipe of a job, never over an existing file; lists the jobs when none is named."""
    if arguments.job is None:
        print("jobs:")
        for name, job in JOBS.items():
            print(f"  {name:<22} {job.summary}")
        print("\nNext: tlscale init JOB")
        return int(ExitCode.OK)
    if arguments.job not in JOBS:
        raise UsageError(f"{arguments.job}: {unknown(arguments.job, JOBS, 'job')}")
    output = Path(arguments.output or f"{arguments.job}.yaml")
    if output.exists():
        raise UsageError(f"{output} exists; name another file with --output")
    try:
        write_text(output, render(arguments.job))
    except WriteError as error:
        raise UsageError(f"{error}; name another file with --output") from error
    print(f"wrote {output}. Edit model and data, then: tlscale check {output}")
    return int(ExitCode.OK)
