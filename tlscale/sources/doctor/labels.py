"""Faults of class labels: unusable, misspelt, rare, one-sided, contradictory, or seen only in a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tlscale.errors import DataError, unknown
from tlscale.sources.doctor.finding import Finding, Kind, finding, places, tally
from tlscale.sources.doctor.part import Part
from tlscale.sources.rows import label

_RATIO, _ENOUGH_ROWS, _LISTED = 20, 20, 6
_MOST_LABELS = 0.5


def check(
    whole: Sequence[Part], parts: Sequence[Part], labels: tuple[str, ...] | None, *, listed: bool
) -> list[Finding]:
    """All findings on labels: in `whole` sources by themselves, and between the `parts` that roles have.

    `labels` are the class names, by default those of the training rows; `listed` says whether the
    recipe lists them.
    """
    found: list[Finding] = []
    for part in whole:
        names, faults = _names(part)
        found += [*faults, *_distribution(part, names)]
    named = [(part, _names(part)[0]) for part in parts]
    learned = {name for part, names in named if part.trains for name, _ in names}
    if labels is None:
        trained = [part.source for part in parts if part.trains]
        shared = {name for part, names in named if part.source in trained for name, _ in names}
        labels, listed = tuple(sorted(learned | shared)), False
    for part, names in named:
        found += _unknown(part, names, labels, learned, listed=listed)
    if listed and learned:
        found += _unused(named, labels, learned)
    return found


def _names(part: Part) -> tuple[list[tuple[str, str]], list[Finding]]:
    """(label, place) of each row that has one, and the rows that haven't."""
    names, hits = [], []
    spec = part.columns.by_role["label"]
    for row, one in zip(part.rows, part.values, strict=True):
        if "label" not in one:
            continue
        try:
            name = label(row, spec)
        except DataError as error:
            said = str(error).partition(": ")[2]
            hits.append((Kind("error", "label", said, "label these rows or drop them"), row.where))
            continue
        if not name.strip():
            hits.append((Kind("error", "label", f"label {spec!r} is blank", "label these rows"), row.where))
            continue
        if name.strip().lower() in ("nan", "null", "<na>"):
            kind = Kind(
                "warning", "placeholder", f"label {name!r}", "an export's word for nothing? drop them"
            )
            hits.append((kind, row.where))
        names.append((name, row.where))
    return names, tally(part.role, hits, len(part.rows))


def _distribution(part: Part, names: list[tuple[str, str]]) -> Iterator[Finding]:
    counts = Counter(name for name, _ in names)
    if not counts:
        return
    first = dict(reversed(names))
    yield from _spelling(part, counts, first)
    largest, smallest = counts.most_common()[0], counts.most_common()[-1]
    if len(counts) == 1:
        text = f"every row has the label {largest[0]!r} ({len(names):,} rows); two classes are needed"
        yield Finding(
            "error" if part.trains else "warning",
            part.role,
            names[0][1],
            "one-class",
            f"{names[0][1]}: {text}",
        )
        return
    if len(names) >= _ENOUGH_ROWS and len(counts) > _MOST_LABELS * len(names):
        fraction = sum(_is_fraction(name) for name in counts) > len(counts) / 2
        what = "these look like measured numbers" if fraction else "is label the right column?"
        text = f"{len(counts):,} labels in {len(names):,} rows, such as {largest[0][:40]!r}; {what}"
        yield Finding("error", part.role, names[0][1], "many-labels", f"{names[0][1]}: {text}")
        return
    if not part.trains:
        return
    single = [first[name] for name, count in counts.items() if count == 1]
    if single and part.source.per_class is None:
        rare = ", ".join(repr(name) for name, count in counts.items() if count == 1)[:80]
        kind = Kind("warning", "one-row", f"labels with a single row ({rare})", "add rows or join classes")
        yield finding(kind, part.role, single, len(names))
    if largest[1] >= _RATIO * smallest[1] and len(names) >= _ENOUGH_ROWS:
        text = (
            f"{part.rows[0].where}: {largest[0]!r} has {largest[1]:,} of {len(names):,} rows, "
            f"{smallest[0]!r} {smallest[1]:,}; judge by f1_macro, or even it out with per_class"
        )
        yield Finding("warning", part.role, first[smallest[0]], "imbalance", text)


def _is_fraction(name: str) -> bool:
    try:
        return not float(name).is_integer()
    except ValueError:
        return False


def _spelling(part: Part, counts: Counter[str], first: dict[str, str]) -> Iterator[Finding]:
    """Labels that differ only in case, or in the white space around or inside."""
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(" ".join(name.casefold().replace("_", " ").split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            said = ", ".join(f"{name!r} {counts[name]:,} rows" for name in names)
            where = first[min(names, key=lambda name: counts[name])]
            text = (
                f"{where}: labels that differ only in spelling: {said}; they are learned as several classes"
            )
            yield Finding("warning", part.role, where, "label-spelling", text)


def _unknown(
    part: Part, names: list[tuple[str, str]], labels: tuple[str, ...], learned: set[str], *, listed: bool
) -> Iterator[Finding]:
    """Labels that the model's head doesn't have, or that no training row teaches."""
    outside: dict[str, list[str]] = {}
    untaught: dict[str, list[str]] = {}
    for name, where in names:
        if name not in labels:
            outside.setdefault(name, []).append(where)
        elif learned and name not in learned:
            untaught.setdefault(name, []).append(where)
    for name, found in list(outside.items())[:_LISTED]:
        hint = unknown(name, labels, "label") if len(labels) <= 12 or listed else "unknown label"
        source = "data.labels" if listed else "the training rows"
        kind = Kind("error", "unknown-label", f"label {name!r} is not in {source}", f"{hint[:200]}")
        yield finding(kind, part.role, found, len(part.rows))
    rest = len(outside) - _LISTED
    if rest > 0:
        some = [where for found in list(outside.values())[_LISTED:] for where in found]
        text = f"{rest:,} more labels that aren't known ({places(some)}); add training rows or drop these"
        yield Finding("error", part.role, some[0], "unknown-label", text)
    if untaught:
        some = [where for found in untaught.values() for where in found]
        names_ = ", ".join(map(repr, list(untaught)[:_LISTED]))
        kind = Kind("warning", "untaught-label", f"labels without any training row ({names_})", "add some")
        yield finding(kind, part.role, some, len(part.rows))


def _unused(
    named: Sequence[tuple[Part, list[tuple[str, str]]]], labels: tuple[str, ...], learned: set[str]
) -> Iterator[Finding]:
    missing = [name for name in labels if name not in learned]
    if missing:
        part = next(part for part, _ in named if part.trains)
        said = ", ".join(map(repr, missing[:_LISTED])) + (", ..." if len(missing) > _LISTED else "")
        text = (
            f"{part.source.path}: no row has the label {said} of data.labels; correct the list or add rows"
        )
        yield Finding("warning", part.role, part.rows[0].where, "unused-label", text)
