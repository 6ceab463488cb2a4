"""The runs on this machine or in a shared folder: what each is, what it came to, and what it stands on."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlscale.errors import PlanError, UsageError, unknown
from tlscale.planning.summary import Fact, facts_of
from tlscale.planning.types import Plan
from tlscale.publish.content import latest
from tlscale.publish.gates import find_verdict
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines

DEEPEST = 4
OWN = ("path", "state", "verdict", "published", "lineage")
# Inside a run these hold runs that belong to it, or no runs at all.
INNER = frozenset(("arms", "checkpoints", "stages", "outcomes", "publication", "publication.work"))
CONDITION = re.compile(r"([\w.]+)(!=|>=|<=|=|~|>|<)(.*)")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge,
    "<=": operator.le,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One run: its facts, its state, its verdict, its scores, where it was published, and its ancestors."""

    path: str
    state: str
    verdict: str
    started: float | None
    facts: dict[str, Fact]
    scores: dict[str, float]
    published: tuple[str, ...]
    lineage: tuple[str, ...] = field(default=())

    def value(self, name: str) -> Fact | None:
        """A fact, a score such as `target.accuracy`, or a field by name."""
        if name in OWN:
            value: Fact | tuple[str, ...] = getattr(self, name)
            return " ".join(value) if isinstance(value, tuple) else value
        return self.facts.get(name, self.scores.get(name))


def find(folders: Sequence[Path]) -> tuple[Entry, ...]:
    """Every run below the folders, newest first.

    Raises:
        UsageError: a folder isn't there.
    """
    plans: dict[Path, tuple[RunLayout, Plan]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; name the folder that holds the runs")
        for root in _roots(folder, 0):
            layout = RunLayout(root)
            try:
                plans[root.resolve()] = (layout, Plan.model_validate_json(layout.plan.read_text("utf-8")))
            except (ValueError, OSError):
                continue
    made = [_entry(layout, plan, plans) for layout, plan in plans.values()]
    return tuple(sorted(made, key=lambda one: -(one.started or 0)))


def _roots(folder: Path, level: int) -> Iterator[Path]:
    if RunLayout(folder).plan.is_file():
        yield folder
        return
    if level == DEEPEST:
        return
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.is_symlink() and inner.name not in INNER:
            yield from _roots(inner, level + 1)


def _entry(layout: RunLayout, plan: Plan, plans: dict[Path, tuple[RunLayout, Plan]]) -> Entry:
    starts = [e["time"] for e in read_lines(layout.events) if e["event"] == "start"]
    try:
        verdict = find_verdict(layout, plan)
    except (ValueError, PlanError):
        verdict = None
    state = "done" if layout.done.is_file() else "failed" if layout.failed.is_file() else "unfinished"
    scores = {
        f"{r['suite']}.{r['metric']}": float(r["value"]) for r in latest(layout) if r["arm"] == "tuned"
    }
    where = tuple(dict.fromkeys(str(row["repository"]) for row in read_lines(layout.published)))
    return Entry(
        path=str(layout.root),
        state=state,
        verdict="-" if verdict is None else str(verdict["word"]),
        started=min(starts) if starts else None,
        facts=facts_of(plan),
        scores=scores,
        published=where,
        lineage=_lineage(plan, plans),
    )


def _lineage(plan: Plan, plans: dict[Path, tuple[RunLayout, Plan]]) -> tuple[str, ...]:
    """What the result stands on, oldest first: bases, and runs whose results were taken as base."""
    made: list[str] = []
    current, seen = plan, {plan.fingerprint}
    while True:
        folder = Path(current.facts.folder) if current.facts.folder else None
        above = [] if folder is None else [folder, *folder.parents]
        parent = next((plans[one] for one in above if one in plans), None)
        if parent is None or parent[1].fingerprint in seen:
            break
        made.append(str(parent[0].root))
        current = parent[1]
        seen.add(current.fingerprint)
    return (current.facts.model, *reversed(made))


def chosen(entries: Sequence[Entry], conditions: Sequence[str]) -> tuple[Entry, ...]:
    """The runs for which every `NAME=VALUE` holds; also !=, <, >, <=, >=, and ~ for `contains`.

    Raises:
        UsageError: a condition is none, or names what no run has.
    """
    kept = tuple(entries)
    for text in conditions:
        found = CONDITION.fullmatch(text)
        if found is None:
            raise UsageError(f"--where {text}: write NAME=VALUE; between them =, !=, ~, <, >, <= or >=")
        name, sign, wanted = found.groups()
        if entries and all(one.value(name) is None for one in entries):
            names = {n for one in entries for n in (*one.facts, *one.scores)} | set(OWN)
            raise UsageError(f"--where {text}: {unknown(name, names)}")
        kept = tuple(one for one in kept if _holds(one.value(name), sign, wanted, text))
    return kept


def _holds(value: Fact | None, sign: str, wanted: str, text: str) -> bool:
    if value is None:
        return False
    if sign == "~":
        return wanted.casefold() in str(value).casefold()
    if isinstance(value, str):
        return COMPARISONS[sign](value, wanted)
    try:
        return COMPARISONS[sign](float(value), float(wanted))
    except ValueError as error:
        raise UsageError(f"--where {text}: it is a number, and {wanted!r} is none") from error


def table(entries: Sequence[Entry]) -> str:
    """The runs as plain text, with what they stand on below those that stand on other runs."""
    if not entries:
        return "no runs"
    rows = [("run", "state", "verdict", "strategy", "base", "target", "published")]
    for one in entries:
        target = next(((n, v) for n, v in one.scores.items() if n.startswith("target.")), None)
        shown = "-" if target is None else f"{target[0].removeprefix('target.')} {target[1]:.4f}"
        method = one.facts.get("method", one.facts["strategy"])
        where = ", ".join(one.published) or "-"
        rows.append((one.path, one.state, one.verdict, str(method), str(one.facts["base"]), shown, where))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for index, row in enumerate(rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if index and len(entries[index - 1].lineage) > 1:
            lines.append(f"  stands on {' > '.join(entries[index - 1].lineage)}")
    return "\n".join(lines)
