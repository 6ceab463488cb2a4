"""`tlscale sweep`: many runs of one recipe with other settings, chosen by the validation rows.

The test rows take no part: a trial is judged on the validation rows and does not even read the others. A
sweep can be interrupted at any time and goes on where it was; several processes may work on one, each
taking the next trial, which is how an array of jobs shares it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue

from tlscale.errors import BusyError, Problem, RecipeError, TlscaleError, UsageError
from tlscale.evaluation import labelfree
from tlscale.evaluation.metrics import DEFAULTS
from tlscale.evaluation.types import HIGHER_IS_BETTER
from tlscale.outer.repeat import TRAINED_ARMS, control
from tlscale.outer.space import contains, draw, grid
from tlscale.outer.trials import Asked, Log, Wanted, carry_out, free
from tlscale.planning.compile import compile_plan
from tlscale.recipe.parse import apply_overrides
from tlscale.recipe.search import Space, Sweep
from tlscale.recipe.types import CLASSIFICATION, Recipe
from tlscale.report.sweeps import Search, SweepResult, Trial
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import exclusive, write_json, write_text, writing
from tlscale.runs.sweep import SweepLayout

CANDIDATE = "tuned"
# An arm that has none of the searched settings has its learning rate searched, this much either way.
AROUND = 10.0
OBJECTIVE = "train.objective"
SEED_STEP = 1_000
Say = Callable[[str, Trial], None]


@dataclass(frozen=True)
class Program:
    """A sweep that was found to be sound, with nothing written yet."""

    asked: Asked
    recipe: Recipe
    sweep: Sweep
    layout: SweepLayout
    arms: tuple[str, ...]
    metric: str
    retention: str | None
    fingerprint: str

    def search(self, arm: str) -> tuple[Asked, dict[str, Space]]:
        """What is searched for an arm, and its settings."""
        if arm == CANDIDATE:
            return self.asked, dict(self.sweep.parameters)
        recipe = control(self.recipe, arm)
        raw = recipe.model_dump(mode="json", exclude_unset=True)
        raw.pop("sweep", None)
        spaces = {name: space for name, space in self.sweep.parameters.items() if name.startswith("train.")}
        if arm == "source_only":
            # it has none of the terms that would be searched
            spaces = {name: space for name, space in spaces.items() if not name.startswith(OBJECTIVE)}
        if not spaces:
            rate = recipe.train.learning_rate
            spaces = {"train.learning_rate": Space(low=rate / AROUND, high=rate * AROUND, log=True)}
        return replace(self.asked, raw=raw), spaces


def program(asked: Asked, *, trials: int | None = None, spaces: Mapping[str, Any] | None = None) -> Program:
    """Checks a sweep as a whole: every end of every range makes a recipe that can be planned.

    Args:
        asked: The written recipe.
        trials: In place of the recipe's number.
        spaces: Settings over the recipe's, as mappings with choices, or low and high.

    Raises:
        RecipeError: with every problem found.
        PlanError: settings don't go together.
        UsageError: there is nothing to search, or nothing to choose by.
    """
    raw, _ = apply_overrides(dict(asked.raw), [])
    written = dict(raw.get("sweep") or {})
    if spaces:
        written["parameters"] = {**(written.get("parameters") or {}), **spaces}
    if trials is not None:
        written["trials"] = trials
    raw["sweep"] = written
    asked = replace(asked, raw=raw)
    recipe = asked.recipe({})
    sweep = recipe.sweep
    if sweep is None or not sweep.parameters:
        raise UsageError(
            "sweep.parameters: missing; name settings there, or with "
            "--set train.learning_rate=log:1e-4..1e-2"
        )
    if recipe.data.validation is None and not recipe.data.validation_split:
        raise UsageError(
            "data.validation: missing; a sweep chooses by validation rows, never by test rows: give "
            "data.validation, or data.validation_split=0.1 to hold out some of the training rows"
        )
    metric, retention = _metrics(recipe, sweep)
    _check_ends(asked, sweep)
    arms = tuple(arm for arm in recipe.evaluate.against if arm in TRAINED_ARMS and sweep.arms)
    layout = SweepLayout(Path(f"{recipe.output_dir or f'runs/{recipe.name}'}-sweep"))
    plan = compile_plan(recipe.model_copy(update={"sweep": None}), offline=asked.offline)
    searched = sweep.model_dump(mode="json", exclude={"trials", "seconds"})
    text = json.dumps([plan.fingerprint, searched], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Program(asked, recipe, sweep, layout, (CANDIDATE, *arms), metric, retention, key)


def _metrics(recipe: Recipe, sweep: Sweep) -> tuple[str, str | None]:
    asked, defaults = recipe.evaluate, DEFAULTS[recipe.model.task]
    known: tuple[str, ...] = asked.target or defaults
    if recipe.data.unlabelled is not None and recipe.model.task in CLASSIFICATION:
        known = (*known, *labelfree.MEASURES)
    if sweep.metric is not None and sweep.metric not in known:
        raise UsageError(
            f"sweep.metric: {sweep.metric}: not measured; allowed: {', '.join(known)} (those of "
            "evaluate.target, and infomax, entropy and snd of a classifier where data.unlabelled is given)"
        )
    kept = (asked.retention or defaults)[0] if recipe.data.retention is not None else None
    return sweep.metric or known[0], kept


def _check_ends(asked: Asked, sweep: Sweep) -> None:
    """Every end of every space, alone, must make a recipe that can be planned."""
    problems: list[Problem] = []
    for name, space in sweep.parameters.items():
        for value in space.ends:
            try:
                recipe = asked.recipe({name: value})
            except RecipeError as error:
                problems += [
                    Problem(f"sweep.parameters.{p.path}", p.given, p.message) for p in error.problems
                ]
            else:
                compile_plan(recipe, offline=asked.offline)
    if problems:
        unique = {(p.path, p.given, p.message): p for p in problems}
        raise RecipeError(asked.source, list(unique.values()))


def run(made: Program, say: Say) -> SweepResult:
    """Carries out what is left of a sweep, and writes its result and the best recipe.

    Raises:
        UsageError: the folder holds something else.
        TlscaleError: no trial came to an end.
    """
    log = Log(made.layout)
    _claim(made, log)
    started = time.monotonic()
    for arm in made.arms:
        while (trial := _taken(made, arm, log, started)) is not None:
            _work(made, arm, trial, log, say)
    result = collected(made, log)
    write_json(made.layout.result, result.model_dump(mode="json"))
    first = result.searches[0]
    if first.chosen is None:
        reasons = sorted({trial.reason for trial in first.trials if trial.reason})
        raise TlscaleError(f"no trial in {made.layout.root} came to its end: {'; '.join(reasons)}")
    return result


def _claim(made: Program, log: Log) -> None:
    """Makes the sweep's folder, or accepts one of the same sweep; several processes may do so at once."""
    layout, key, mark = made.layout, made.fingerprint, made.layout.fingerprint
    if layout.root.exists():
        # what a process leaves that makes the folder at this moment, or was killed while it did
        begun = {layout.lock.name, layout.recipe.name, mark.name}
        begun |= {f".{name}.partial" for name in begun}
        # and what the submission of its jobs leaves
        jobs = RunLayout(layout.root)
        begun |= {jobs.slurm.name, jobs.job_log("*").parent.name}
        foreign = not layout.root.is_dir() or {entry.name for entry in layout.root.iterdir()} - begun
        # looked for last: another process may have come further since
        if foreign and not mark.is_file():
            raise UsageError(f"{layout.root} is not empty and no sweep; give output_dir=ANOTHER")
    if not mark.is_file():
        with writing(layout.root):
            layout.root.mkdir(parents=True, exist_ok=True)
        with log.turn():
            if not mark.is_file():
                text = yaml.safe_dump(dict(made.asked.raw), sort_keys=False, allow_unicode=True)
                write_text(layout.recipe, text)
                write_text(mark, f"{key}\n")
    before = mark.read_text(encoding="utf-8").strip()
    if before != key:
        raise UsageError(
            f"{layout.root} holds another sweep ({before}, now {key}); give output_dir=ANOTHER, or "
            "remove the folder if it is no longer needed"
        )


def _taken(made: Program, arm: str, log: Log, started: float) -> Trial | None:
    """The next trial to work on: one that was left behind, or a new one; `None` when all are taken."""
    seconds = made.sweep.seconds
    with log.turn():
        known = log.trials(arm)
        for one in known:
            if one.state == "running" and free(made.layout.busy(arm, one.number)):
                return one
        points = grid(made.search(arm)[1]) if made.sweep.sampler == "grid" else ()
        most = min(made.sweep.trials, len(points)) if points else made.sweep.trials
        late = seconds is not None and time.monotonic() - started > seconds
        if len(known) >= most or late:
            return None
        number = len(known)
        parameters = points[number] if points else _drawn(made, arm, known, number)
        trial = Trial(number=number, state="running", parameters=parameters, folder=log.folder(arm, number))
        log.add(arm, trial)
        return trial


def _drawn(made: Program, arm: str, known: Sequence[Trial], number: int) -> dict[str, JsonValue]:
    asked, spaces = made.search(arm)
    fixed = own_settings(asked.recipe({}), spaces) if number == 0 else {}
    return draw(
        made.sweep, spaces, known, seed=made.recipe.seed * SEED_STEP + number, fixed=fixed,
        higher_is_better=HIGHER_IS_BETTER[made.metric],
    ).parameters  # fmt: skip


def own_settings(recipe: Recipe, spaces: Mapping[str, Space]) -> dict[str, JsonValue]:
    """The recipe's own values of what is searched, where they could have been drawn."""
    found: dict[str, JsonValue] = {}
    written = recipe.model_dump(mode="json")
    for name, space in spaces.items():
        value: Any = written
        for key in name.split("."):
            if isinstance(value, list):
                value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        if contains(space, value):
            found[name] = value
    return found


def _work(made: Program, arm: str, trial: Trial, log: Log, say: Say) -> None:
    """Runs one trial, unless another process took it meanwhile, and writes down what came of it."""
    busy = made.layout.busy(arm, trial.number)
    busy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(busy):
            if log.trials(arm)[trial.number].state == "running":
                say(arm, _carried_out(made, arm, trial, log))
    except BusyError:
        return


def _carried_out(made: Program, arm: str, trial: Trial, log: Log) -> Trial:
    asked, spaces = made.search(arm)
    before = [one for one in log.trials(arm) if one.state in ("complete", "pruned")]
    judge = draw(
        made.sweep, spaces, before, seed=0, fixed=trial.parameters,
        higher_is_better=HIGHER_IS_BETTER[made.metric],
    )  # fmt: skip
    wanted = Wanted(made.metric, made.retention, made.sweep.prune)
    ended = carry_out(asked, trial, made.layout, arm, wanted=wanted, hopeless=judge.hopeless)
    log.add(arm, ended)
    return ended


def collected(made: Program, log: Log) -> SweepResult:
    """What the log says of every arm."""
    higher = HIGHER_IS_BETTER[made.metric]
    searches = []
    for arm in made.arms:
        trials = log.trials(arm)
        values = {t.number: t.value for t in trials if t.state == "complete" and t.value is not None}
        best = min(values, key=lambda n: (-values[n] if higher else values[n], n)) if values else None
        searches.append(
            Search(
                arm=arm, metric=made.metric, higher_is_better=higher, retention_metric=made.retention,
                parameters=tuple(made.search(arm)[1]), trials=trials, best=best,
            )
        )  # fmt: skip
    return SweepResult(name=made.recipe.name, fingerprint=made.fingerprint, searches=tuple(searches))
