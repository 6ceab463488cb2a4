"""Reads the plan's data and turns it into examples, role by role: once, by the leading process.

Texts go to flat files in the run directory, which the other processes and later tries of the run map into
memory, so that rows are tokenized once and held once a machine.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tlscale import __version__
from tlscale.data.arriving import Arriving, Joined
from tlscale.data.examples import Example, Prepared, PrepareReport, prepare
from tlscale.data.store import Stored
from tlscale.engine.runtime import Runtime
from tlscale.errors import PlanError
from tlscale.models.saving import saving
from tlscale.planning.types import Plan
from tlscale.recipe.types import WITHOUT_TEXT, Source
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.pulse import Pulse
from tlscale.runs.record import write_json
from tlscale.sources import Row, read, resolve
from tlscale.sources.roles import GIVEN, Role, Rows, role_rows, unlabelled_rows
from tlscale.sources.streaming import shards
from tlscale.worker.console import Reporter
from tlscale.worker.hiding import JUDGED, judged
from tlscale.worker.parts import summed, write_parts
from tlscale.worker.supply import Blocks, Supply

Roles = dict[str, Sequence[Example]]
ROWS_AT_ONCE = 4096
STREAM = "stream"
LOOK_AGAIN_SECONDS = 0.2


def load_rows(plan: Plan, roles: Sequence[Role] = GIVEN) -> dict[str, tuple[Source, Rows]]:
    """The rows of `roles`, of streams a first part.

    What is held out of the training rows depends on the recipe's seed alone,
    so that repeats by `seeds` are judged on the same items; few-shot sampling varies with the run's.
    """
    data, seed = plan.recipe.data, plan.recipe.seed
    found: dict[str, tuple[Source, Rows]] = {}
    for role in roles:
        found |= role_rows(data, role, seed=seed, run_seed=plan.seed)
    return found


def streams(plan: Plan) -> bool:
    """Whether the training rows are read while training goes on."""
    return plan.recipe.data.train is not None and plan.recipe.data.train.streaming


def thinned(rows: Sequence[Row], most: int | None) -> Rows:
    """At most `most` rows, evenly spaced, in their order."""
    if most is None or len(rows) <= most:
        return tuple(rows)
    return tuple(rows[index * len(rows) // most] for index in range(most))


def load_examples(
    plan: Plan, layout: RunLayout, runtime: Runtime, processor: Any, reporter: Reporter
) -> Roles:
    """The examples of each role, and of each stage that brings its own rows (under the stage's name).

    Raises:
        PlanError: a stage has no rows to train on.
        DataError: a row can't be read or used.
    """
    if plan.recipe.model.task in WITHOUT_TEXT:
        found: Roles = {}
        for role, source, rows in _sources(plan):
            keep = plan.recipe.data.augmentation is not None and role not in JUDGED
            prepared = list(_prepared(plan, processor, source, rows, keep_pictures=keep))
            _say(plan, reporter, role, summed([one.report for one in prepared]))
            found[role] = tuple(example for one in prepared for example in one.examples)
        return found
    stamp = _stamp(plan)
    if runtime.leads:
        before = _manifest(layout).get("stamp")
        if before is not None and before["files"] != stamp["files"]:
            changed = [path for path, state in stamp["files"].items() if before["files"].get(path) != state]
            reporter.warn(f"changed since this run began, so its rows are read anew: {', '.join(changed)}")
        if before != stamp:
            _store(plan, layout, stamp, processor)
        for role, report in _manifest(layout)["roles"].items():
            _say(plan, reporter, role, PrepareReport(**report))
    while _manifest(layout).get("stamp") != stamp:
        # No collective call: making examples may take longer than those wait. If the leading process
        # fails, the launcher ends this one.
        time.sleep(LOOK_AGAIN_SECONDS)
    stored = {role: _stored(layout.examples / role) for role in _manifest(layout)["roles"]}
    return judged(plan, processor, stored)


def load_stream(
    plan: Plan, layout: RunLayout, runtime: Runtime, processor: Any, reporter: Reporter, pulse: Pulse
) -> Arriving | None:
    """The training examples of a recipe that streams them, once `load_examples` has the others."""
    source = plan.recipe.data.train
    if source is None or not source.streaming:
        return None
    reporter.phase("data", f"train: read while training goes on, {source.rows_at_once:,} rows at a time")
    supply = Supply(
        Blocks(layout.examples / STREAM, source, partial(_prepare, plan, processor, source)),
        leads=runtime.leads,
        helpers=plan.recipe.train.dataloader_num_workers,
        # all processes come to the blocks in the same order
        arriving=lambda number: pulse.at(f"waiting for block {number + 1:,} of the training rows"),
        # the last one tells all: what was read before is counted again by a run that goes on
        seen=lambda report: reporter.said("data", role="train", part=True, **asdict(report)),
        warn=reporter.warn,
    )
    return Arriving(supply.block, supply.close)


def _stored(folder: Path) -> Joined:
    return Joined([Stored(part) for part in sorted(folder.iterdir())])


def _sources(plan: Plan) -> Iterator[tuple[str, Source, Rows]]:
    """Every role with its rows, read one after the other."""
    rows = load_rows(plan, [role for role in GIVEN if role != "train" or not streams(plan)])
    split = plan.recipe.evaluate.split
    if split != "test":
        rows.pop("test", None)
    for role in (split, "retention"):
        if role in rows:
            rows[role] = (rows[role][0], thinned(rows[role][1], plan.recipe.evaluate.max_rows))
    if plan.recipe.data.unlabelled is not None:
        any_label = plan.facts.labels[0] if plan.facts.labels else None
        rows["unlabelled"] = unlabelled_rows(
            plan.recipe.data.unlabelled, seed=plan.recipe.seed, label=any_label
        )
    for planned in plan.stages:
        own = planned.stage.source
        if own is not None:
            rows[planned.stage.name] = (own, read(own, seed=plan.seed))
    given = streams(plan) or "train" in rows
    if not all(given or p.stage.name in rows for p in plan.stages):
        raise PlanError("data.train: missing; every stage needs rows to train on")
    yield from ((role, source, found) for role, (source, found) in rows.items())


def _prepared(
    plan: Plan, processor: Any, source: Source, rows: Rows, *, keep_pictures: bool = False
) -> Iterator[Prepared]:
    """The examples of `rows`, some thousand rows at a time."""
    for start in range(0, max(1, len(rows)), ROWS_AT_ONCE):
        yield _prepare(plan, processor, source, rows[start : start + ROWS_AT_ONCE], keep_pictures)


def _prepare(
    plan: Plan, processor: Any, source: Source, rows: Sequence[Row], keep_pictures: bool = False
) -> Prepared:
    return prepare(
        rows,
        source,
        task=plan.recipe.model.task,
        processor=processor,
        labels=plan.facts.labels,
        max_length=plan.max_length,
        overflow=plan.recipe.data.overflow,
        loss_on=plan.recipe.data.loss_on,
        keep_pictures=keep_pictures,
    )


def _store(plan: Plan, layout: RunLayout, stamp: dict[str, Any], processor: Any) -> None:
    """Makes all examples and puts them into the run directory, whole or not at all."""
    reports: dict[str, Any] = {}
    with saving(layout.examples) as folder:
        for role, source, rows in _sources(plan):
            made = partial(_prepared, plan, processor, source)
            reports[role] = write_parts(
                folder / role, rows, made, helpers=plan.recipe.train.dataloader_num_workers
            )
        if streams(plan):
            (folder / STREAM).mkdir()
        write_json(folder / MANIFEST, {"stamp": stamp, "roles": reports})
        shutil.rmtree(layout.examples, ignore_errors=True)
        folder.rename(layout.examples)


def _manifest(layout: RunLayout) -> dict[str, Any]:
    """What is known of the stored examples; empty where there are none."""
    try:
        found: dict[str, Any] = json.loads((layout.examples / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _stamp(plan: Plan) -> dict[str, Any]:
    """What stored examples must have been made from to be used: the plan, and the files as they are."""
    data = plan.recipe.data
    given = (data.train, data.validation, data.test, data.retention)
    sources = [*given, *(planned.stage.source for planned in plan.stages)]
    parts = [part for source in sources if source is not None for part in source.parts]
    paths = sorted({part.path for part in parts if part.path is not None})
    files = {path: resolve(path) for path in paths}
    states = {path: _state(file) for path, file in files.items()}
    if data.train is not None and data.train.streaming:
        states |= {str(shard): _state(shard) for shard in shards(data.train)}
    return {"plan": plan.fingerprint, "tlscale": __version__, "files": states}


def _state(path: Path) -> list[int] | None:
    if not path.exists():
        return None
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _say(plan: Plan, reporter: Reporter, role: str, report: PrepareReport) -> None:
    reporter.said("data", role=role, **asdict(report))
    text = f"{role}: {report.rows:,} rows, {report.examples:,} examples"
    if report.tokens and plan.recipe.model.task == "causal-lm":
        share = report.supervised_tokens / report.tokens
        text += f", {report.tokens:,} tokens ({share:.0%} trained on)"
    elif report.supervised_tokens:
        text += f", {report.tokens:,} tokens ({report.supervised_tokens:,} that may be hidden)"
    elif report.tokens:
        text += f", {report.tokens:,} tokens"
    reporter.phase("data", text)
    if report.cut_rows or report.dropped_rows:
        clips = plan.recipe.model.task == "audio-classification"
        longest = "the spectrogram" if clips else f"{plan.max_length:,} tokens"
        fix = "cut the clips yourself" if clips else "raise data.max_length"
        reporter.warn(
            f"{role}: {report.cut_rows:,} rows longer than {longest} lost {report.cut_tokens:,} "
            f"{'frames' if clips else 'tokens'}, {report.dropped_rows:,} rows were dropped; "
            f"{fix} or set data.overflow=error"
        )
