"""All checks over the rows of all roles, and how a recipe's sources come to be checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tlscale.errors import DataError
from tlscale.recipe.types import CLASSIFICATION, Recipe, Source, Task
from tlscale.sources.doctor import cells, chat, clips, files, images, overlap
from tlscale.sources.doctor import labels as class_labels
from tlscale.sources.doctor.finding import Finding, ordered
from tlscale.sources.doctor.part import Part, part_of
from tlscale.sources.formats import map_columns, place
from tlscale.sources.paths import resolve
from tlscale.sources.read import columns, read, survey
from tlscale.sources.roles import GIVEN, Rows, role_rows
from tlscale.sources.rows import Row

# Beyond this a check would be no quick look any more.
_LARGEST = 256 << 20
_NUMBER = re.compile(r"[0-9]+")


def diagnose(recipe: Recipe) -> tuple[Finding, ...]:
    """Reads the local sources of `recipe` as its run would, and examines them.

    Sources on the Hub and very large files are left to the run; a note says so.
    """
    found: list[Finding] = []
    rows: dict[str, tuple[Source, Rows]] = {}
    data, seed = recipe.data, recipe.seed
    for role in GIVEN:
        source: Source | None = getattr(data, role)
        if source is not None and _within_reach(role, source, found):
            with _noting(role, found):
                rows |= role_rows(data, role, seed=seed, run_seed=seed)
    for stage in recipe.stages:
        if stage.data is not None and _within_reach(stage.name, stage.data, found):
            with _noting(stage.name, found):
                rows[stage.name] = (stage.data, read(stage.data, seed=seed))
    known: tuple[str, ...] | None = data.labels
    if known is None and data.train is not None and recipe.model.task in CLASSIFICATION:
        with suppress(DataError):  # said above, where the rows were read
            known = _all_labels(data.train)
    found += examine(rows, task=recipe.model.task, labels=known, listed=data.labels is not None)
    return ordered(dict.fromkeys(found))


def examine(
    rows_by_role: Mapping[str, tuple[Source, Rows]],
    *,
    task: Task,
    labels: tuple[str, ...] | None,
    listed: bool = True,
) -> tuple[Finding, ...]:
    """What is wrong or suspicious in rows that were read, errors first.

    `labels` are the class names, `listed` whether the recipe lists them; `None` stands for those of the
    training rows.
    """
    found: list[Finding] = []
    whole: list[Part] = []
    parts: list[Part] = []
    for group in _by_source(rows_by_role):
        own, faults = _parts(group, task)
        found += faults
        if not own:
            continue
        parts += own[1:] or own
        part = own[0]
        whole.append(part)
        found += cells.check(part)
        found += chat.check(part) if part.columns.format == "messages" else []
        found += images.check(part) if part.columns.format == "image-classification" else []
        found += clips.check(part) if part.columns.format == "audio-classification" else []
        found += files.sizes(part)
    if task in CLASSIFICATION:
        found += class_labels.check(whole, parts, labels, listed=listed)
    found += overlap.within(whole) + overlap.across(parts)
    return ordered(found)


def refused(role: str, error: DataError) -> Finding:
    """The finding for rows that can't be read at all."""
    return Finding("error", role, str(error).partition(": ")[0], "unreadable", str(error))


@contextmanager
def _noting(role: str, found: list[Finding]) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        found.append(refused(role, error))


def _within_reach(role: str, source: Source, found: list[Finding]) -> bool:
    """Whether `source` is looked at; otherwise, and of its beginning, `found` is told."""
    if source.tasks is not None:
        return all(_within_reach(role, part, found) for part in source.tasks.values())
    where = place(source)
    if source.path is None:
        text = f"{where}: rows on the Hub are not looked at here; --examples and the run read them"
        found.append(Finding("note", role, where, "not-read", text))
        return False
    with _noting(role, found):
        path = resolve(source.path)
        if source.streaming:
            text = f"{where}: of a stream only the first {source.rows_at_once:,} rows are looked at"
            found.append(Finding("note", role, where, "partly-read", text))
        elif path.is_file() and path.stat().st_size > _LARGEST:
            text = f"{where}: {path.stat().st_size / 1e6:,.0f} MB are too much for a quick look"
            found.append(Finding("note", role, where, "not-read", text))
            return False
        found.extend(files.marks(role, path))
        return True
    return False


def _all_labels(source: Source) -> tuple[str, ...] | None:
    """Every label of the training file where the recipe takes only some of its rows."""
    if source.path is None or (source.limit is None and source.span == (0.0, 1.0)):
        return None
    return survey(source, need_labels=True).labels


def _by_source(rows_by_role: Mapping[str, tuple[Source, Rows]]) -> list[dict[str, tuple[Source, Rows]]]:
    """Training rows and what was held out of them are one group: a fault of the file is said once."""
    groups: list[dict[str, tuple[Source, Rows]]] = []
    for role, (source, rows) in rows_by_role.items():
        group = next((one for one in groups if source in [other for other, _ in one.values()]), None)
        if group is None:
            groups.append({role: (source, rows)})
        else:
            group[role] = (source, rows)
    return groups


def _parts(group: Mapping[str, tuple[Source, Rows]], task: Task) -> tuple[list[Part], list[Finding]]:
    """First all rows of the source as one part, then those of each role if there are several."""
    source = next(source for source, _ in group.values())
    role = next((name for name in group if name not in GIVEN or name == "train"), next(iter(group)))
    together: list[Row] = []
    for _, rows in group.values():
        seen = {row.where for row in together}
        together += [row for row in rows if row.where not in seen]
    if len(group) > 1:
        together.sort(key=lambda row: int((_NUMBER.findall(row.where) or ["0"])[-1]))
    there = tuple(together[0].values)
    try:
        mapped = map_columns(source, there)
        # A parquet file gives the rows only the columns that are read.
        names = columns(source) if Path(source.path or "").suffix.lower() in (".parquet", ".pq") else there
    except DataError as error:
        return [], [refused(role, error)]
    found = list(files.near_columns(role, source, mapped, names))
    unfit = files.unfit(role, source, mapped, task, together[0].where)
    if unfit is not None:
        return [], [*found, unfit]
    part, faults = part_of(role, source, together, mapped)
    own = [part_of(name, source, rows, mapped)[0] for name, (_, rows) in group.items()]
    return [part, *(own if len(own) > 1 else [])], [*found, *faults]
