"""Talks to Slurm: submits, asks, signals and cancels, by the programs that every cluster has.

Only `squeue`, `scontrol`, `sbatch` and `scancel` are used: accounting (`sacct`) is not set up everywhere.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tlscale.errors import TlscaleError, UsageError

SECONDS = 60
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
LIVE = (*WAITING, "CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING")
SQUEUE = ("squeue", "--noheader", "--array", "--states=all", "--format=%i|%F|%K|%T|%r|%N")


class SlurmError(TlscaleError):
    """A program of Slurm refused or failed; its own words are passed on."""


@dataclass(frozen=True)
class Queued:
    """One job, or one element of an array, as `squeue` knows it; `element` is `None` outside arrays."""

    number: str
    array: str
    element: str | None
    state: str
    reason: str
    machines: str

    @property
    def why(self) -> str:
        """Why it waits, or nothing."""
        return self.reason if self.state in WAITING and self.reason != "None" else ""


def call(argv: Sequence[str]) -> str:
    """The output of a program of Slurm.

    Raises:
        UsageError: there is no Slurm here.
        SlurmError: it failed, or gave no answer in a minute.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError as error:
        raise UsageError(
            f"{argv[0]}: not found; this needs a machine of the cluster with Slurm's commands"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{argv[0]} gave no answer in {SECONDS} s; the controller may be down") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise SlurmError(f"{argv[0]}: {said}")
    return done.stdout


def submit(argv: Sequence[str]) -> str:
    """Submits a batch script; returns the job's number."""
    number = call(argv).strip().partition(";")[0]
    if not number.isdecimal():
        raise SlurmError(f"sbatch: no job number in its answer {number[:80]!r}")
    return number


def queued(numbers: Sequence[str]) -> tuple[Queued, ...]:
    """What is known of jobs that wait or run; those that ended are left out after a while."""
    found = []
    for number in numbers:
        try:
            said = call((*SQUEUE, f"--jobs={number}"))
        except SlurmError as error:
            if "Invalid job id" in str(error):
                continue
            raise
        found += [_parsed(line) for line in said.splitlines() if line.count("|") == 5]
    return tuple(found)


def _parsed(line: str) -> Queued:
    number, array, element, state, reason, machines = line.strip().split("|")
    inside = element if element.isdecimal() else None
    return Queued(number, array, inside, state, reason.strip("()"), machines)


def cancel(numbers: Sequence[str]) -> None:
    """Ends jobs; those that already ended are no error."""
    for number in numbers:
        try:
            call(("scancel", number))
        except SlurmError as error:
            if not re.search("Invalid job id|already completing", str(error)):
                raise
