"""What can go wrong, as one small family of exceptions, each with its exit code.

Every message is written for the person who has to act on it: where, what was given, what is
allowed, the nearest name, the fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes of every `tlscale` command; programs may rely on them."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    DOES_NOT_FIT = 3
    REGRESSION = 4
    NOT_VERIFIED = 5
    STOPPED = 75


# As shells have it for a process that Ctrl-C ended.
INTERRUPTED = 130


class TlscaleError(Exception):
    """Base of all errors meant for a user; `exit_code` becomes the process's."""

    exit_code = ExitCode.RUN_FAILED


class UsageError(TlscaleError, ValueError):
    """The command line, a recipe or a data file asks for something that can't be meant."""

    exit_code = ExitCode.USAGE


class DataError(UsageError):
    """A data file can't be read as the recipe says; the message names file and line."""


class PlanError(UsageError):
    """The recipe is well formed but its parts don't go together, or the model can't be planned."""


class DoesNotFitError(TlscaleError, ValueError):
    """The plan needs more memory than the device has."""

    exit_code = ExitCode.DOES_NOT_FIT


class WriteError(TlscaleError):
    """A file or folder can't be written, most often because a disk is full or may only be read."""


class BusyError(UsageError):
    """Another process is at work in the run directory."""


class Stopped(TlscaleError):
    """The run was asked to stop and did; it can go on from where everything is saved.

    `reason` is the signal or file that asked; `step` of `steps` is the last one done, where training had
    begun. 75 is EX_TEMPFAIL of sysexits.h: try again later.
    """

    exit_code = ExitCode.STOPPED

    def __init__(
        self, reason: str, *, stage: str | None = None, step: int | None = None, steps: int | None = None
    ) -> None:
        self.reason, self.stage, self.step, self.steps = reason, stage, step, steps
        where = (
            "" if step is None else f" after step {step:,} of {steps:,} of stage {stage}, which is saved"
        )
        super().__init__(f"stopped by {reason}{where}; the same command goes on from there")


class RegressionError(TlscaleError):
    """The result scores worse than its base, and the caller asked for that to be an error."""

    exit_code = ExitCode.REGRESSION


class VerificationError(TlscaleError):
    """A saved result is not what it must be: empty, unmoved, not finite, or different when reloaded."""

    exit_code = ExitCode.NOT_VERIFIED


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a recipe: `path` in it, what was `given`, and the `message` to act on."""

    path: str
    given: str
    message: str


class RecipeError(UsageError):
    """Every problem found in one recipe, together."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(self._render())

    def _render(self) -> str:
        count = len(self.problems)
        head = f"{count} problem{'' if count == 1 else 's'} in {self.source}"
        widths = [
            min(48, max((len(cell) for cell in column), default=0))
            for column in ([p.path for p in self.problems], [p.given for p in self.problems])
        ]
        lines = [
            f"  {p.path:<{widths[0]}}  {p.given:<{widths[1]}}  {p.message}".rstrip() for p in self.problems
        ]
        return "\n".join([head, "", *lines])


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name closest to `name`, or `None` when nothing is near."""
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown(name: str, allowed: Iterable[str], what: str = "name") -> str:
    """The sentence for an unknown `what`: a suggestion where one is near, else what is allowed."""
    options = sorted(set(allowed))
    near = nearest(name, options)
    if near is not None:
        return f"unknown {what}; did you mean {near}?"
    return f"unknown {what}; allowed: {', '.join(options)}"
