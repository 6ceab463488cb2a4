"""What a verdict rests on: the measurements of every arm and seed, found in run directories.

Only what the verdict needs is read from a plan, so that runs of other versions can still be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tlscale.errors import UsageError
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.recipe.evaluate import Report
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines

Asked = tuple[str, str]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PlanModel(_Part):
    """Of the recipe's model: its task, and whether its weights were kept."""

    task: str
    init: str = "pretrained"


class PlanEvaluate(_Part):
    """Of the recipe's evaluation: other runs that count as control arms, and how settings were chosen."""

    against_runs: tuple[str, ...] = ()
    split: str = "test"
    trials: dict[str, int] = Field(default_factory=dict)


class PlanRecipe(_Part):
    """Of the recipe: model, other runs to beat, and margins."""

    model: PlanModel
    evaluate: PlanEvaluate = PlanEvaluate()
    report: Report = Report()


class PlanDecision(_Part):
    """Of one parameter: its name, and its scale if it is trained."""

    name: str
    lr_scale: float | None


class PlanTerm(_Part):
    """Of one objective term: its name."""

    name: str = "task"


class PlanObjective(_Part):
    """Of one stage: what is optimized."""

    objective: tuple[PlanTerm, ...] = ()


class PlanStage(_Part):
    """Of one stage: what is trained, and on what objective."""

    stage: PlanObjective = PlanObjective()

    decisions: tuple[PlanDecision, ...] = ()
    trainable: int
    total: int


class PlanFacts(_Part):
    """Of the base: the classes in their order."""

    labels: tuple[str, ...] = ()


class PlanPart(_Part):
    """What a verdict needs of a plan."""

    fingerprint: str
    facts: PlanFacts = PlanFacts()
    recipe: PlanRecipe
    stages: tuple[PlanStage, ...]


@dataclass(frozen=True)
class RunFolder:
    """One run directory; `name` is its path relative to what the user named."""

    name: str
    layout: RunLayout
    plan: PlanPart
    arms: Mapping[str, Mapping[Asked, Measurement]]

    def outcomes(self, arm: str, suite: str) -> dict[tuple[str, int], Outcome]:
        """Outcomes of one arm on one suite, by where the item came from and its number."""
        path = self.layout.outcomes(arm, suite)
        found: dict[tuple[str, int], Outcome] = {}
        for line, row in enumerate(read_lines(path), start=1):
            try:
                one = Outcome.model_validate(row)
            except ValidationError as error:
                raise UsageError(f"{path}:{line}: not an outcome: {_first(error)}") from error
            found[one.where, one.item] = one
        if not found:
            raise UsageError(
                f"{path}: missing or empty; run `tlscale evaluate {self.layout.root}` to make it"
            )
        return found


@dataclass(frozen=True)
class Scored:
    """One arm of one seed: where its measurements and outcomes lie, and under which arm's name."""

    run: RunFolder
    arm: str

    @property
    def measured(self) -> Mapping[Asked, Measurement]:
        return self.run.arms[self.arm]

    def outcomes(self, suite: str) -> dict[tuple[str, int], Outcome]:
        return self.run.outcomes(self.arm, suite)


@dataclass(frozen=True)
class Evidence:
    """All arms of a run or of its repeats: `arms` maps arm -> seed directory -> scores."""

    root: Path
    seeds: tuple[RunFolder, ...]
    controls: tuple[RunFolder, ...]
    arms: Mapping[str, Mapping[str, Scored]]
    reasons: tuple[str, ...]

    @property
    def fingerprints(self) -> dict[str, str]:
        return {run.name: run.plan.fingerprint for run in (*self.seeds, *self.controls)}


def gather(root: Path) -> Evidence:
    """Reads a run directory, or a folder of `seed-*` run directories.

    Raises:
        UsageError: it is neither, or a file in it is not what a run writes.
    """
    folders = [root] if RunLayout(root).plan.is_file() else _seed_folders(root)
    if not folders:
        raise UsageError(
            f"{root}: {'not a run directory' if root.exists() else 'there is no such folder'}; "
            "give the output_dir of a run, with plan.json or seed-* folders in it"
        )
    seeds = tuple(read_run(folder, root) for folder in folders)
    controls: list[RunFolder] = []
    reasons: list[str] = []
    arms: dict[str, dict[str, Scored]] = {}
    for run in seeds:
        for arm in run.arms:
            arms.setdefault(arm, {})[run.name] = Scored(run, arm)
        if "tuned" not in run.arms:
            reasons.append(f"{run.layout.root} has no scores of a trained model yet.")
        for folder in sorted(run.layout.arm("any").parent.glob("*/")):
            if not RunLayout(folder).plan.is_file():
                continue
            control = read_run(folder, root)
            controls.append(control)
            if "tuned" in control.arms:
                arms.setdefault(folder.name, {})[run.name] = Scored(control, "tuned")
            else:
                reasons.append(f"The control arm {control.name} has not finished.")
    for other in seeds[0].plan.recipe.evaluate.against_runs:
        found, why = _other_run(Path(other).expanduser(), [run.name for run in seeds])
        reasons += why
        if found:
            arms[other] = found
    return Evidence(root, seeds, tuple(controls), arms, tuple(reasons))


def _other_run(root: Path, seeds: Sequence[str]) -> tuple[dict[str, Scored], list[str]]:
    """Another run's scores, tuned or base, by seed: the one of its name, the only one, or in order."""
    folders = [root] if RunLayout(root).plan.is_file() else _seed_folders(root)
    runs = [read_run(folder, root) for folder in folders]
    scored = [
        Scored(r, arm) for r in runs if (arm := next((a for a in ("tuned", "base") if a in r.arms), ""))
    ]
    if not scored:
        return {}, [f"The run {root} is not there any more, or has no scores, so it was not compared with."]
    if len(scored) == 1:
        alone = f"The run {root} has one seed, whose own spread is not in the interval."
        return dict.fromkeys(seeds, scored[0]), [alone] if len(seeds) > 1 else []
    named = {one.run.name: one for one in scored}
    if set(seeds) <= set(named):
        return {name: named[name] for name in seeds}, []
    return dict(zip(seeds, scored, strict=False)), [f"The seeds of {root} are paired in order."]


def _seed_folders(root: Path) -> list[Path]:
    found = [path for path in root.glob("seed-*") if RunLayout(path).plan.is_file()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def read_run(folder: Path, root: Path) -> RunFolder:
    """One run directory; of repeated measurements the last counts.

    Raises:
        UsageError: its plan or a measurement can't be read.
    """
    layout = RunLayout(folder)
    try:
        plan = PlanPart.model_validate_json(layout.plan.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        why = _first(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(f"{layout.plan}: not a plan: {why}") from error
    arms: dict[str, dict[Asked, Measurement]] = {}
    for line, row in enumerate(read_lines(layout.measurements), start=1):
        try:
            one = Measurement.model_validate(row)
        except ValidationError as error:
            raise UsageError(f"{layout.measurements}:{line}: not a measurement: {_first(error)}") from error
        arms.setdefault(one.arm, {})[one.suite, one.metric] = one
    return RunFolder(str(folder.relative_to(root)), layout, plan, arms)


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
