"""The Python API, for notebooks and scripts: `from tlscale import Recipe, plan, run, evaluate`.

The same rooms as the command line's, and the same files: a run made here is one that every command
takes, and the other way round. Training happens in a process of its own, so that a notebook stays free
of torch and can be interrupted.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from tlscale.errors import DoesNotFitError, UsageError
from tlscale.evaluation.types import Measurement
from tlscale.launching.local import lines, worker_command
from tlscale.outer.repeat import RunSpec, prepare, runs_of
from tlscale.outer.scored import Asked as TasksAsked
from tlscale.outer.scored import ready
from tlscale.planning.compile import compile_plan, memory_shortfall, read_plan
from tlscale.planning.html import html_table
from tlscale.planning.types import Plan
from tlscale.recipe.load import check, load_recipe
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines, write_json
from tlscale.runs.result import existing, seed_runs

if TYPE_CHECKING:
    from tlscale.report.types import Verdict

__all__ = ["Plan", "Recipe", "Run", "evaluate", "plan", "run"]

Asked: TypeAlias = "Recipe | Mapping[str, Any] | str | Path"
DATA = "TLSCALE_DATA"


def plan(recipe: Asked, *overrides: str, offline: bool = False) -> Plan:
    """What a run of `recipe` would do; nothing is run, and no weights are read.

    Args:
        recipe: A recipe, a mapping with its keys, or a recipe file.
        overrides: Settings over the recipe's, as on the command line: "train.learning_rate=1e-4".
        offline: Read the Hub's cache only.

    Raises:
        RecipeError: with every problem found.
        PlanError: parts of the recipe don't go together.
    """
    return compile_plan(_recipe(recipe, overrides), offline=offline)


def run(recipe: Asked, *overrides: str, offline: bool = False, quiet: bool = False) -> Run:
    """Plans, trains, scores, verifies and judges; goes on where an earlier try of the same plan stopped.

    Args:
        quiet: Don't print what the run says while it works.

    Raises:
        DoesNotFitError: it needs more memory than a device has.
        WorkerFailed: the run failed; its directory has the reason in FAILED.
    """
    asked = _recipe(recipe, overrides)
    specs = runs_of(asked, offline=offline)
    for spec in specs:
        _must_fit(spec.plan)
    with _as_file(recipe) as file:
        for spec in specs:
            prepare(spec, file)
    for spec in specs:
        for single in (*spec.arms, spec):
            _work(single, quiet=quiet)
    return _judged(Path(asked.output_dir or f"runs/{asked.name}"))


def evaluate(
    run: Run | str | Path,
    tasks: Sequence[str] = (),
    *overrides: str,
    shots: Sequence[int] = (0,),
    limit: int | None = None,
    output: str | Path | None = None,
    offline: bool = False,
    quiet: bool = False,
) -> Run:
    """Scores base and result of a run, or of each of its seeds, again, and judges it anew.

    With `tasks`: scores evaluation tasks on the base and result of a run, or on any model (a folder, a
    Hub id, an adapter, an address). The scores of a model that is no run go to `output`, by default
    evals/NAME, which is opened like a run: `evaluate("org/model", ["hellaswag"]).measurements`.

    Args:
        tasks: Names of `tlscale tasks`, patterns such as `mmlu_*`, or YAML files.
        overrides: Settings such as "evaluate.shot_selection=balanced", "model.quantization=nf4".
        shots: Examples before each question; one run of every task for each number.
        limit: Score at most so many items of each task.
        offline: Read the Hub's cache only.
        quiet: Don't print what is said meanwhile.

    Raises:
        UsageError: there is no run or model, or settings without tasks.
        WorkerFailed: the evaluation or one of the tasks failed; the others were scored and filed.
    """
    if tasks:
        model = str(run.path if isinstance(run, Run) else run)
        settings: dict[str, Any] = {"tasks": list(tasks), "shots": list(shots)}
        settings |= {} if limit is None else {"max_rows": limit}
        settings |= {"data_dir": os.environ[DATA]} if DATA in os.environ else {}
        folder = None if output is None else str(output)
        asked = TasksAsked(settings, overrides, "the call of evaluate", folder, os.environ, offline)
        layout, command = ready(model, asked)
        _say(lines(command), quiet=quiet)
        return Run(layout.root)
    if overrides or output is not None or limit is not None:
        raise UsageError("a run's own suites are scored as its plan says; these settings go with tasks")
    opened = run if isinstance(run, Run) else Run.open(run)
    for layout in opened.layouts:
        processes = read_plan(layout.plan).world.processes
        _say(lines(worker_command(layout.root, "evaluate", processes=processes)), quiet=quiet)
    return _judged(opened.path)


@dataclass(frozen=True)
class Run:
    """A run directory, or the folder of a recipe's runs by seed; everything is read from its files."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in `path`.

        Raises:
            UsageError: there is none.
        """
        folder = Path(path)
        if not seed_runs(folder):
            existing(folder)
        return cls(folder)

    @property
    def layouts(self) -> tuple[RunLayout, ...]:
        """The run directories: one, or one for each seed."""
        return seed_runs(self.path) or (RunLayout(self.path),)

    @property
    def plan(self) -> Plan:
        """The plan; of the first seed where there are several."""
        return read_plan(self.layouts[0].plan)

    @property
    def done(self) -> bool:
        """Whether all of it came to its end."""
        return all(layout.done.is_file() for layout in self.layouts)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The latest score of each suite, metric and arm; for each seed where there are several."""
        found: dict[tuple[Path, str, str, str], Measurement] = {}
        for layout in self.layouts:
            for row in read_lines(layout.measurements):
                made = Measurement.model_validate(row)
                found[layout.root, made.suite, made.metric, made.arm] = made
        return tuple(found.values())

    @property
    def verdict(self) -> Verdict | None:
        """What the run came to; `None` while it has not been judged."""
        from tlscale.report.types import Verdict

        file = RunLayout(self.path).verdict
        return Verdict.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None

    def predict(
        self, inputs: str | Sequence[str], *, max_new_tokens: int | None = None
    ) -> list[dict[str, Any]]:
        """Answers of the run's result, in order: completion, or label, probability and top, or embedding.

        Images are given by their paths. The first seed answers where there are several. Each call loads
        the model anew, so ask for many at once.

        Raises:
            WorkerFailed: the run has no result, or an input can't be read.
        """
        given = [inputs] if isinstance(inputs, str) else list(inputs)
        request = json.dumps({"lines": "json", "max_new_tokens": max_new_tokens})
        command = worker_command(self.layouts[0].root, "predict", "--json", "--request", request)
        answers = lines(command, given="".join(json.dumps(one) + "\n" for one in given))
        found = [json.loads(answer) for answer in answers]
        return [{name: value for name, value in one.items() if name != "where"} for one in found]

    def __repr__(self) -> str:
        verdict = self.verdict
        word = "not judged" if self.done else "unfinished" if self.plan.stages else "scores"
        if self.done and verdict is not None:
            word = f"{verdict.word}, a smoke result" if verdict.smoke else verdict.word
        return f"Run({str(self.path)!r}: {word})"

    def _repr_html_(self) -> str:
        seeds = f", {len(self.layouts)} seeds, means over them" if len(self.layouts) > 1 else ""
        headings = ("suite", "metric", "base", "tuned", "change", "items")
        return html_table(f"{self!r}{seeds}", headings, self._scores(), self._reasons())

    def _scores(self) -> list[tuple[str, ...]]:
        groups: dict[tuple[str, str], dict[str, list[Measurement]]] = {}
        for made in self.measurements:
            groups.setdefault((made.suite, made.metric), {}).setdefault(made.arm, []).append(made)
        rows = []
        for (suite, metric), arms in groups.items():
            means = {arm: fmean(made.value for made in found) for arm, found in arms.items()}
            base, tuned = means.get("base"), means.get("tuned")
            change = "" if base is None or tuned is None else f"{tuned - base:+.4f}"
            values = ["" if value is None else f"{value:.4f}" for value in (base, tuned)]
            items = max(made.n for found in arms.values() for made in found)
            rows.append((suite, metric, *values, change, f"{items:,}"))
        return rows

    def _reasons(self) -> tuple[str, ...]:
        verdict = self.verdict
        return () if verdict is None else verdict.reasons


def _recipe(given: Asked, overrides: Sequence[str]) -> Recipe:
    if isinstance(given, Recipe):
        given = given.model_dump(mode="json", exclude_unset=True)
    if isinstance(given, Mapping):
        return check(given, overrides, source="the recipe", environment=os.environ)
    return load_recipe(Path(given), overrides, environment=os.environ)


@contextmanager
def _as_file(given: Asked) -> Iterator[Path]:
    """The recipe as it was written; one made in Python as JSON, which is YAML too."""
    if isinstance(given, (str, Path)):
        yield Path(given)
        return
    raw = given.model_dump(mode="json", exclude_unset=True) if isinstance(given, Recipe) else dict(given)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        write_json(file, raw)
        yield file


def _must_fit(made: Plan) -> None:
    short = memory_shortfall(made)
    if short:
        raise DoesNotFitError(
            f"does not fit: {short / 1e9:.1f} GB more are estimated than a device has; print(plan(...)) "
            "has the account. Smaller: train.gradient_checkpointing=true, "
            "train.per_device_train_batch_size=1, data.max_length"
        )


def _work(spec: RunSpec, *, quiet: bool) -> None:
    processes = spec.plan.world.processes
    _say(lines(worker_command(spec.layout.root, "train", processes=processes)), quiet=quiet)


def _say(said: Iterator[str], *, quiet: bool) -> None:
    for line in said:
        if not quiet:
            print(line, flush=True)


def _judged(path: Path) -> Run:
    """The run with its verdict and report filed in its directory, as `tlscale run` leaves it."""
    from tlscale.report.render import render
    from tlscale.report.verdict import judge, write_verdict

    verdict = judge(path)
    write_verdict(path, verdict)
    render(path, verdict)
    return Run(path)
