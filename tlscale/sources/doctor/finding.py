"""What the doctor says: one finding per kind of fault and role, with counts and the first places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing found in the rows of `role`.

    An error can't be meant; a warning is suspicious; a note is worth knowing. `where` is the first place
    ("train.csv:17"), or the source. `check` is a short constant name for programs; `message` has
    what is wrong, in how many rows, where, and the fix.
    """

    severity: Severity
    role: str
    where: str
    check: str
    message: str


@dataclass(frozen=True)
class Kind:
    """A fault that rows may have: `problem` completes "3 of 40 rows: ...", `fix` says what to do."""

    severity: Severity
    check: str
    problem: str
    fix: str

    def about(self, column: str) -> Kind:
        """The same fault, said of a column."""
        return replace(self, problem=f"column {column!r} {self.problem}")


def places(found: list[str]) -> str:
    """The first places, a file's name said once: "train.csv:17, :20, :31 and 9 more"."""
    said, before = [], ""
    for where in found[:_SHOWN]:
        name, colon, line = where.rpartition(":")
        said.append(f":{line}" if colon and line.isdigit() and name == before else where)
        before = name
    more = len(found) - _SHOWN
    return ", ".join(said) + (f" and {more:,} more" if more > 0 else "")


def finding(kind: Kind, role: str, found: list[str], total: int) -> Finding:
    """The finding for a fault at the places `found`, in `total` rows."""
    message = f"{kind.problem}: {len(found):,} of {total:,} rows ({places(found)}); {kind.fix}"
    return Finding(kind.severity, role, found[0], kind.check, message)


def tally(role: str, hits: Iterable[tuple[Kind, str]], total: int) -> list[Finding]:
    """One finding for each kind among `hits`, which are faults with their places."""
    by_kind: dict[Kind, list[str]] = {}
    for kind, where in hits:
        by_kind.setdefault(kind, []).append(where)
    return [finding(kind, role, found, total) for kind, found in by_kind.items()]


def ordered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; otherwise as they were found."""
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))
