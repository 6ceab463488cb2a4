"""What a card tells of data and scores beyond the verdict: fingerprints, overlap, gaps between groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import DataError, TlscaleError
from tlscale.evaluation.types import Outcome
from tlscale.planning.types import Plan
from tlscale.recipe.types import Source
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines, sha256
from tlscale.sources import resolve
from tlscale.sources.doctor import diagnose

ROLES = ("train", "validation", "test", "retention")
FEWEST = 5
HASHED_BYTES = 4_000_000_000


@dataclass(frozen=True)
class DataPart:
    """The rows of one role: their name, where on the Hub they are, their fingerprint and licence."""

    role: str
    name: str
    hub: str | None
    revision: str | None
    sha256: str | None
    rows: int | None
    licence: str | None


@dataclass(frozen=True)
class Gaps:
    """Share of right answers by class, for the classes with enough items: the lowest and the highest."""

    groups: int
    lowest: tuple[str, float, int]
    highest: tuple[str, float, int]


def sources_of(plan: Plan) -> Iterator[tuple[str, Source]]:
    """Every source of a recipe with its role or stage."""
    for role in ROLES:
        source: Source | None = getattr(plan.recipe.data, role)
        if source is not None:
            yield from ((role, part) for part in source.parts)
    for stage in plan.recipe.stages:
        if stage.data is not None:
            yield from ((f"stage {stage.name}", part) for part in stage.data.parts)


def data_parts(plan: Plan, layout: RunLayout, licences: Mapping[str, str | None]) -> tuple[DataPart, ...]:
    """All data of a run; `licences` are those of data sets on the Hub."""
    rows = {e["role"]: e["rows"] for e in read_lines(layout.events) if e["event"] == "data"}
    made = []
    for role, source in sources_of(plan):
        licence = source.license
        if licence is None and source.hub is not None:
            licence = licences.get(source.hub)
        made.append(
            DataPart(
                role=role,
                name=source.hub or Path(source.path or "").name,
                hub=source.hub,
                revision=source.revision,
                sha256=fingerprint(source),
                rows=rows.get(role),
                licence=licence,
            )
        )
    return tuple(made)


def fingerprint(source: Source) -> str | None:
    """SHA-256 of a source's file; `None` where it is no file of this machine, or a huge one."""
    if source.path is None:
        return None
    try:
        path = resolve(source.path)
    except DataError:
        return None
    if not path.is_file() or path.stat().st_size > HASHED_BYTES:
        return None
    return sha256(path)


def contamination(plan: Plan) -> tuple[str, ...]:
    """What the rows that are scored share with those that were trained on, as sentences."""
    if any(source.hub for _, source in sources_of(plan)):
        return ("Not checked: data sets on the Hub are not read again for a card.",)
    try:
        found = [one for one in diagnose(plan.recipe) if one.check in ("overlap", "prompt-overlap")]
    except TlscaleError:
        return ("Not checked: the data could not be read again.",)
    # what follows in a message are places in files of this machine
    said = tuple(
        f"{one.message.partition(', case and')[0]}."
        if one.check == "overlap"
        else f"Prompts of the {one.role} rows are also in the training rows, with other completions."
        for one in found
    )
    return said or ("No row that is scored is also a training row, case and white space aside.",)


def gaps(layout: RunLayout) -> Gaps | None:
    """How unevenly the right answers are spread over the classes; `None` where answers have no class."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in read_lines(layout.outcomes("tuned", "target")):
        one = Outcome.model_validate(row)
        if one.reference is None:
            return None
        total[one.reference] += 1
        right[one.reference] += one.correct
    shares = sorted((right[n] / total[n], n, total[n]) for n in total if total[n] >= FEWEST)
    if len(shares) < 2:
        return None
    (low, first, n), (high, last, m) = shares[0], shares[-1]
    return Gaps(len(shares), (first, low, n), (last, high, m))


def shift(layout: RunLayout) -> str:
    """How far the test rows are from the training rows, where `tlscale probe` has measured it."""
    beside = RunLayout(layout.root.with_name(f"{layout.root.name}-probe"))
    for place in (layout, beside):
        if place.probe.is_file():
            found: Any = json.loads(place.probe.read_text(encoding="utf-8")).get("shift")
            first = found[0] if isinstance(found, list) and found else found
            if isinstance(first, dict) and "c2st" in first:
                return (
                    f"From training to test rows, in the base's last layer: two-sample classifier accuracy "
                    f"{first['c2st']:.3f} (0.5 is no shift, p = {first['c2st_p']:.3f}), "
                    f"proxy A-distance {first['a_distance']:.3f}."
                )
    return "Not measured; the command tlscale probe does."
