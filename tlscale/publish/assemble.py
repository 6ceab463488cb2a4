"""Everything that is published of a run, gathered in a folder of its own, deterministically.

The same run and options give the same bytes, so that a second push finds nothing to do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tlscale import __version__
from tlscale.errors import UsageError
from tlscale.planning.carrying import foundation
from tlscale.planning.types import Plan
from tlscale.publish import card, content, evidence, gguf, licences, metadata
from tlscale.publish.bases import base_on_hub
from tlscale.publish.content import PROBE, Base
from tlscale.publish.digests import digests
from tlscale.publish.gates import Candidate
from tlscale.publish.hub import Hub
from tlscale.publish.push import RECORD
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import read_lines, sha256, write_json, write_text
from tlscale.runs.result import OTHER_KINDS

# Verifies the result, and writes what it makes of random inputs and, if asked for, the merged checkpoint.
Prepare = Callable[[Path, "Path | None"], None]


@dataclass(frozen=True)
class Options:
    """What the user decides on: where to, for whom, under which licence, and in which form."""

    repository: str
    private: bool = True
    licence: str | None = None
    base: str | None = None
    merged: bool = False
    gguf_ready: bool = False


def assemble(found: Candidate, options: Options, hub: Hub, prepare: Prepare) -> Path:
    """The folder to publish.

    Raises:
        UsageError: base or licence don't allow it.
        VerificationError: the result is not what was trained.
    """
    layout, plan = found.layout, found.plan
    merged = options.merged or options.gguf_ready
    _stands_alone(found, merged=merged)
    base, base_licence = _base(plan, options, hub, kind=found.manifest["kind"], merged=merged)
    sets = {source.hub for _, source in evidence.sources_of(plan) if source.hub is not None}
    known = {name: _dataset_licence(hub, name) for name in sorted(sets)}
    data = evidence.data_parts(plan, layout, known)
    where = base.name if base is not None else plan.facts.model
    links = [licences.Link("base", where, base_licence)]
    links += [licences.Link("data set", part.name, part.licence) for part in data if _learned(part.role)]
    chain = licences.settle(dict.fromkeys(links), options.licence)
    artifact, probe = _prepared(found, prepare, merged=merged)
    folder = layout.publication
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = Path(plan.facts.folder) if plan.facts.folder else None
    manifest = content.copy_weights(artifact, folder, base_folder=own)
    if options.gguf_ready:
        gguf.check(folder)
    shutil.copyfile(probe, folder / PROBE)
    named = base or Base(Path(plan.facts.model).name, None)
    content.name_the_base(folder, manifest, named)
    public = content.public_plan(plan, named)
    content.write_records(folder, layout, public, found.verdict)
    told = _told(found, options, public, base, chain, data, manifest, merged=merged)
    _write_card(folder, told, layout)
    record = {
        "version": 1,
        "tlscale": __version__,
        "kind": manifest["kind"],
        "plan": plan.fingerprint,
        "data": {part.role: part.sha256 for part in data if part.sha256 is not None},
        "files": {name: one.sha256 for name, one in digests(folder).items()},
    }
    write_json(folder / RECORD, record)
    return folder


def _learned(role: str) -> bool:
    return role in ("train", "validation") or role.startswith("stage ")


def _stands_alone(found: Candidate, *, merged: bool) -> None:
    """Refuses an adapter on an earlier stage of its own run, which nobody else has."""
    kind, stages = found.manifest["kind"], [planned.stage for planned in found.plan.stages]
    if merged and kind != "adapter":
        raise UsageError(
            f"{found.layout.root}: nothing to merge, the result is {OTHER_KINDS[kind]}; leave --merged out"
        )
    if kind != "checkpoint" and not merged and (below := foundation(stages, stages[-1])) != "base":
        raise UsageError(
            f"{found.layout.root}: stage {stages[-1].name} stands on stage {below}, which others "
            "don't have; give --merged to publish both in one"
        )


def _base(
    plan: Plan, options: Options, hub: Hub, *, kind: str, merged: bool
) -> tuple[Base | None, str | None]:
    """The base on the Hub with its licence; none for a whole checkpoint whose base is a folder."""
    whole = merged or kind == "checkpoint"
    if whole and plan.facts.commit is None and options.base is None:
        return None, _licence_of_folder(Path(plan.facts.folder))
    base, about = base_on_hub(plan, hub, options.base)
    return base, about.licence


def _licence_of_folder(folder: Path) -> str | None:
    """The licence on the card of a model in a folder, if it has one."""
    file = folder / "README.md"
    if not file.is_file():
        return None
    head, found, rest = file.read_text(encoding="utf-8", errors="replace").partition("---\n")
    if head.strip() or not found:
        return None
    try:
        said = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return None
    licence = said.get("license") if isinstance(said, dict) else None
    return licence if isinstance(licence, str) else None


def _dataset_licence(hub: Hub, name: str) -> str | None:
    about = hub.about(name, dataset=True)
    return None if about is None else about.licence


def _prepared(found: Candidate, prepare: Prepare, *, merged: bool) -> tuple[Path, Path]:
    """The artifact to publish and its recorded outputs; made once for an artifact, and kept."""
    work = found.layout.prepared
    seal = {"artifact": sha256(found.artifact / MANIFEST), "merged": merged}
    note, probe, whole = work / "prepared.json", work / PROBE, work / "merged"
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != seal:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        prepare(probe, whole if merged else None)
        write_json(note, seal)
    return (whole if merged else found.artifact), probe


def _told(
    found: Candidate,
    options: Options,
    public: Plan,
    base: Base | None,
    chain: licences.Chain,
    data: tuple[evidence.DataPart, ...],
    manifest: Mapping[str, Any],
    *,
    merged: bool,
) -> card.Told:
    layout = found.layout
    events = list(read_lines(layout.events))
    verified = [e for e in events if e["event"] == "verified"]
    starts = [e for e in events if e["event"] == "start"]
    return card.Told(
        repository=options.repository,
        plan=public,
        kind=manifest["kind"],
        merged=merged,
        base=base,
        chain=chain,
        data=data,
        scores=tuple(content.latest(layout)),
        verdict=found.verdict,
        despite=found.despite,
        contamination=evidence.contamination(found.plan),
        shift=evidence.shift(layout),
        gaps=evidence.gaps(layout),
        verified=verified[-1] if verified else None,
        versions=starts[-1]["versions"] if starts else public.versions,
    )


def _write_card(folder: Path, told: card.Told, layout: RunLayout) -> None:
    tuned = [row for row in told.scores if row["arm"] == "tuned" and row["suite"] == "target"]
    head = metadata.metadata(
        told.plan, kind=told.kind, base=told.base, chain=told.chain, data=told.data, scores=tuned
    )
    write_text(folder / "README.md", head + "\n" + card.body(told))
    ends = [e["time"] for e in read_lines(layout.events) if e["event"] == "done"]
    finished = ends[-1] if ends else None
    for name, text in metadata.eval_results(told.plan, told.data, tuned, finished).items():
        write_text(folder / name, text)
