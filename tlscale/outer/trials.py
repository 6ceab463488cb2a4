"""One trial of a search: its recipe, its run directory, its worker, and what is written down of it."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue

from tlscale.errors import BusyError, TlscaleError
from tlscale.evaluation import labelfree
from tlscale.evaluation.types import Measurement
from tlscale.launching.local import worker_command
from tlscale.launching.watched import watched
from tlscale.outer.repeat import RunSpec, prepare
from tlscale.planning.compile import compile_plan, memory_shortfall
from tlscale.planning.types import Plan
from tlscale.recipe.load import check
from tlscale.recipe.parse import apply_overrides
from tlscale.recipe.types import Recipe
from tlscale.report.sweeps import Trial
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, exclusive, read_lines, write_text
from tlscale.runs.sweep import SweepLayout

LOOKS = 8
OUT_OF_TIME = "out of time"
WAIT_SECONDS = 0.05
LOOK_SECONDS = 1.0
Environment = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """A written recipe with what is searched in it; `raw` is unexpanded, as a user would write it."""

    raw: Mapping[str, Any]
    source: str
    environment: Environment
    offline: bool

    def recipe(self, parameters: Mapping[str, JsonValue]) -> Recipe:
        """The recipe with `parameters` in it.

        Raises:
            RecipeError: with every problem found.
        """
        return check(self.raw, overrides(parameters), source=self.source, environment=self.environment)

    def trial(self, parameters: Mapping[str, JsonValue], name: str, *, looks: bool) -> dict[str, Any]:
        """The written recipe of one trial: judged on the validation rows, alone, without other arms.

        With `looks` its validation loss is measured about eight times while it trains, unless the recipe
        says when.
        """
        raw, _ = apply_overrides(dict(self.raw), overrides(parameters))
        for key in ("sweep", "seeds", "output_dir", "publish"):
            raw.pop(key, None)
        raw["name"] = name
        without = {"against", "against_runs", "arm_settings", "trials", "tasks"}
        kept = {key: value for key, value in (raw.get("evaluate") or {}).items() if key not in without}
        raw["evaluate"] = {**kept, "split": "validation"}
        train = raw.get("train") or {}
        if looks and train.get("eval_steps") is None:
            made = self._plan(raw)
            steps = made.stages[-1].steps if made.stages else None
            if steps:
                raw["train"] = {**train, "eval_steps": math.ceil(steps / LOOKS)}
        return raw

    def plan(self, raw: Mapping[str, Any]) -> Plan:
        """The plan of a trial's written recipe.

        Raises:
            TlscaleError: it can't be planned, or needs more memory than there is.
        """
        made = self._plan(raw)
        short = memory_shortfall(made)
        if short:
            raise TlscaleError(f"does not fit: {short / 1e9:.1f} GB more than a device has are needed")
        return made

    def _plan(self, raw: Mapping[str, Any]) -> Plan:
        recipe = check(raw, source=self.source, environment=self.environment)
        return compile_plan(recipe, offline=self.offline)


def overrides(parameters: Mapping[str, JsonValue]) -> list[str]:
    """Settings as the command line has them."""
    return [f"{name}={json.dumps(value)}" for name, value in parameters.items()]


@dataclass(frozen=True)
class Wanted:
    """What is read off a trial: its metric on the validation rows, and one of retention."""

    metric: str
    retention: str | None
    looks: bool


def carry_out(
    asked: Asked,
    trial: Trial,
    layout: SweepLayout,
    arm: str,
    *,
    wanted: Wanted,
    hopeless: Callable[[Sequence[float]], bool],
    until: float | None = None,
) -> Trial:
    """Runs a trial to its end, or goes on with one that was interrupted, or stops it while it trains.

    Args:
        until: The clock (`time.monotonic`) after which it is stopped.
    """
    began = time.monotonic()
    file, run = layout.asked(arm, trial.number), RunLayout(layout.folder(arm, trial.number))
    try:
        raw = asked.trial(trial.parameters, f"trial-{trial.number:03d}", looks=wanted.looks)
        plan = asked.plan(raw)
        write_text(file, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))
        if not run.plan.is_file():
            # killed while it was made: nothing was run in it yet, and it is the sweep's own
            shutil.rmtree(run.root, ignore_errors=True)
        prepare(RunSpec(plan, run), file)
    except TlscaleError as error:
        return _ended(trial, "failed", began, reason=str(error).partition("\n")[0])
    while not free(run.events):
        # a worker whose sweep was killed is still at it; what it leaves is this trial's
        time.sleep(LOOK_SECONDS)

    def late() -> bool:
        return until is not None and time.monotonic() > until

    command = worker_command(run.root, "train", processes=plan.world.processes)
    code, stopped = watched(
        command, lambda: late() or hopeless(losses(run, plan)), log=layout.said(arm, trial.number)
    )
    seen = losses(run, plan)
    if stopped:
        why = OUT_OF_TIME if late() else "its validation loss was above the median of earlier trials"
        return _ended(trial, "pruned", began, losses=seen, reason=why)
    if code:
        return _ended(
            trial, "failed", began, losses=seen, reason=_reason(run, layout.said(arm, trial.number))
        )
    return _scored(trial.model_copy(update={"losses": seen}), run, plan, wanted, began)


def _scored(trial: Trial, run: RunLayout, plan: Plan, wanted: Wanted, began: float) -> Trial:
    """The trial with what was measured of its result, or of the base where nothing is trained."""
    who = "tuned" if plan.stages else "base"
    found = {(m.suite, m.metric): m.value for m in _measurements(run) if m.arm == who}
    suite = labelfree.SUITE if wanted.metric in labelfree.MEASURES else "target"
    value = found.get((suite, wanted.metric))
    if value is None or not math.isfinite(value):
        return _ended(trial, "failed", began, reason=f"its {wanted.metric} is {value}")
    kept = None if wanted.retention is None else found.get(("retention", wanted.retention))
    return _ended(trial, "complete", began, value=value, retention=kept)


def losses(run: RunLayout, plan: Plan) -> tuple[float, ...]:
    """The validation losses of a run's last stage so far, in nats."""
    last = plan.stages[-1].stage.name if plan.stages else None
    rows = {
        int(row["step"]): float(row["loss"])
        for row in read_lines(run.events)
        if row["event"] == "validated" and row["stage"] == last
    }
    return tuple(loss for _, loss in sorted(rows.items()))


def _measurements(run: RunLayout) -> Iterator[Measurement]:
    return (Measurement.model_validate(row) for row in read_lines(run.measurements))


def _ended(trial: Trial, state: str, began: float, **facts: Any) -> Trial:
    seconds = round(time.monotonic() - began, 1) + (trial.seconds or 0.0)
    return trial.model_copy(update={"state": state, "seconds": seconds, **facts})


def _reason(run: RunLayout, log: Path) -> str:
    if run.failed.is_file():
        return run.failed.read_text(encoding="utf-8").partition("\n")[0]
    said = log.read_text(encoding="utf-8", errors="replace").strip()
    return said.splitlines()[-1] if said else "the worker ended without a word"


@dataclass(frozen=True)
class Log:
    """The log of a sweep's trials: every one as it was begun, and again as it ended."""

    layout: SweepLayout

    def trials(self, arm: str) -> tuple[Trial, ...]:
        """The trials of an arm by number, each as it stood last."""
        found: dict[int, Trial] = {}
        for row in read_lines(self.layout.log):
            if row["arm"] == arm:
                one = Trial.model_validate_json(json.dumps({k: v for k, v in row.items() if k != "arm"}))
                found[one.number] = one
        return tuple(one for _, one in sorted(found.items()))

    def add(self, arm: str, trial: Trial) -> None:
        append_line(self.layout.log, {"arm": arm, **trial.model_dump(mode="json")})

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keeps other processes from taking a trial at the same time."""
        while True:
            try:
                with exclusive(self.layout.lock):
                    yield
                    return
            except BusyError:
                time.sleep(WAIT_SECONDS)

    def folder(self, arm: str, number: int) -> str:
        return str(self.layout.folder(arm, number).relative_to(self.layout.root))


def free(path: Path) -> bool:
    """Whether no process holds the lock at `path`."""
    try:
        with exclusive(path):
            return True
    except BusyError:
        return False
