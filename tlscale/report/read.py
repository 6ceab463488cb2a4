"""All facts of a finished run, read from its directory and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import DataError, PlanError
from tlscale.evaluation.types import Outcome
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import Plan, PlannedStage
from tlscale.recipe.types import Source
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import read_lines, sha256
from tlscale.sources import read as read_rows
from tlscale.sources import resolve, text

READABLE_BYTES = 64_000_000
HASHED_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Point:
    """One logged optimizer step; `speed` is in tokens per second since the stage began."""

    step: int
    loss: float
    learning_rate: float
    speed: float


@dataclass(frozen=True)
class StageFacts:
    """What was planned for a stage and what became of it; `None` where it didn't get that far."""

    planned: PlannedStage
    examples: int | None
    points: tuple[Point, ...]
    validated: tuple[tuple[int, float], ...]
    steps: int | None
    tokens: int | None
    seconds: float | None
    stopped_early: bool
    verified: Mapping[str, Any] | None
    manifest: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        return self.planned.stage.name


@dataclass(frozen=True)
class RoleFacts:
    """How the rows of one role came out of preparation."""

    role: str
    rows: int
    examples: int
    tokens: int
    cut_rows: int
    cut_tokens: int
    dropped_rows: int


@dataclass(frozen=True)
class SeedFacts:
    """One run directory that holds a plan; `sealed` where the plan's fingerprint fits its content."""

    layout: RunLayout
    plan: Plan
    sealed: bool
    stages: tuple[StageFacts, ...]
    roles: tuple[RoleFacts, ...]
    versions: Mapping[str, str]
    warnings: tuple[str, ...]
    started: float | None
    wall_seconds: float | None

    def outcomes(self, arm: str, suite: str) -> tuple[Outcome, ...]:
        """The items of one evaluation; empty where it wasn't made."""
        return tuple(Outcome.model_validate(row) for row in read_lines(self.layout.outcomes(arm, suite)))


@dataclass(frozen=True)
class RunFacts:
    """A run, or the repeats of one recipe with several seeds; `seeds` has at least one."""

    root: Path
    recipe: str
    seeds: tuple[SeedFacts, ...]

    @property
    def first(self) -> SeedFacts:
        return self.seeds[0]

    @property
    def task(self) -> str:
        return self.first.plan.recipe.model.task


def read(run: Path) -> RunFacts:
    """Everything known of the run in `run`, which holds a plan or the folders `seed-0`, `seed-1`, ...

    Raises:
        PlanError: there is no run there, or its plan can't be read.
    """
    if RunLayout(run).plan.is_file():
        roots = [run]
    else:
        roots = sorted((p.parent for p in run.glob("seed-*/plan.json")), key=_seed_number)
    if not roots:
        raise PlanError(f"{run}: not a run directory (it has no plan.json and no seed-N/plan.json)")
    seeds = tuple(_seed(root) for root in roots)
    recipe = seeds[0].layout.recipe
    return RunFacts(run, recipe.read_text(encoding="utf-8") if recipe.is_file() else "", seeds)


def _seed_number(folder: Path) -> tuple[int, str]:
    digits = folder.name.removeprefix("seed-")
    return int(digits) if digits.isdecimal() else -1, folder.name


def _seed(root: Path) -> SeedFacts:
    layout = RunLayout(root)
    plan = _plan(layout.plan)
    events = list(read_lines(layout.events))
    starts = [e for e in events if e["event"] == "start"]
    roles = {e["role"]: _role(e) for e in events if e["event"] == "data"}
    return SeedFacts(
        layout=layout,
        plan=plan,
        sealed=plan.fingerprint == fingerprint(plan),
        stages=tuple(_stage(layout, planned, events) for planned in plan.stages),
        roles=tuple(roles.values()),
        versions=starts[-1]["versions"] if starts else plan.versions,
        warnings=tuple(dict.fromkeys(str(e["text"]) for e in events if e["event"] == "warning")),
        started=starts[0]["time"] if starts else None,
        wall_seconds=events[-1]["time"] - starts[-1]["time"] if starts else None,
    )


def _plan(path: Path) -> Plan:
    """The plan as it is: unlike a run, a report can live with one that an earlier version wrote."""
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"{path}: not a plan that this version of tlscale can read: {error}") from error


def _role(event: Mapping[str, Any]) -> RoleFacts:
    names = ("rows", "examples", "tokens", "cut_rows", "cut_tokens", "dropped_rows")
    return RoleFacts(event["role"], **{name: event[name] for name in names})


def _stage(layout: RunLayout, planned: PlannedStage, events: Sequence[Mapping[str, Any]]) -> StageFacts:
    name = planned.stage.name
    steps: dict[int, Point] = {}
    validated: dict[int, float] = {}
    last: dict[str, Mapping[str, Any]] = {}
    current = ""
    for event in events:
        happened = event["event"]
        current = event["name"] if happened == "stage" else current
        if happened == "step" and current == name:
            # a step repeated after an interruption replaces the lost one
            steps[event["step"]] = Point(
                event["step"], event["loss"], event["learning_rate"], event["tokens_per_second"]
            )
        elif happened == "validated" and event["stage"] == name:
            validated[event["step"]] = event["loss"]
        elif happened == "stage" and event["name"] == name:
            last["stage"] = event
        elif happened in ("trained", "verified") and event["stage"] == name:
            last[happened] = event
    trained = last.get("trained", {})
    return StageFacts(
        planned=planned,
        examples=last.get("stage", {}).get("examples"),
        points=tuple(point for _, point in sorted(steps.items())),
        validated=tuple(sorted(validated.items())),
        steps=trained.get("steps"),
        tokens=trained.get("tokens"),
        seconds=trained.get("seconds"),
        stopped_early=trained.get("stopped_early", False),
        verified=last.get("verified"),
        manifest=_manifest(layout.artifact(name) / MANIFEST),
    )


def _manifest(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def texts(plan: Plan) -> tuple[Mapping[str, str], str]:
    """What the test items say, by where they are, and a sentence on why there is none.

    The data is read again, since outcomes hold answers only; it may be gone or elsewhere by now.
    """
    data = plan.recipe.data
    source = data.test or data.train
    if source is not None and source.tasks is not None:
        return {}, "These items are of several tasks; where each one is stands above its answers."
    column = None if source is None else source.text or source.prompt
    if source is None or column is None:
        return {}, "These items are not texts; where each one is stands above its answers."
    if source.hub is not None:
        return {}, "The texts are on the Hub and are not fetched for a report."
    path = local_file(source)
    if path is None or path.stat().st_size > READABLE_BYTES:
        return (
            {},
            "The texts could not be read again from here: the file is elsewhere by now, or too large.",
        )
    every = source.model_copy(update={"span": (0.0, 1.0), "limit": None, "per_class": None})
    try:
        return {row.where: text(row, column) for row in read_rows(every, seed=0)}, ""
    except DataError as error:
        return {}, f"The texts could not be read again: {error}"


def local_file(source: Source) -> Path | None:
    """The file of a source on this machine, if it is one and still there."""
    if source.path is None:
        return None
    try:
        path = resolve(source.path)
    except DataError:
        return None
    return path if path.is_file() else None


def file_digest(source: Source) -> tuple[str, int] | None:
    """SHA-256 and bytes of a source's file; `None` where there is no such file here, or a huge one."""
    path = local_file(source)
    if path is None or path.stat().st_size > HASHED_BYTES:
        return None
    return sha256(path), path.stat().st_size
