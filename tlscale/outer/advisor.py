"""`tlscale advise` and `strategy: {kind: auto}`: looks at a task, proposes a strategy, races a few.

Looking costs one pass of the frozen base over some of the training rows. A race trains each proposal for
its share of a budget and chooses by the validation rows; the test rows' labels are used by neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tlscale.errors import UsageError
from tlscale.evaluation.metrics import DEFAULTS
from tlscale.evaluation.types import HIGHER_IS_BETTER
from tlscale.launching.local import WorkerFailed, launch, worker_command
from tlscale.outer import space
from tlscale.outer.trials import LOOKS, OUT_OF_TIME, Asked, Wanted, carry_out
from tlscale.planning.advice import ZERO_SHOT, Advice, Evidence, Proposal, advise, written
from tlscale.planning.compile import compile_plan
from tlscale.recipe.types import Recipe
from tlscale.report.sweeps import Trial
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json, write_text
from tlscale.runs.sweep import SweepLayout

MOST_RACED = 3
HELD_OUT = 0.2
FEWEST_TO_HOLD_OUT = 5
# seconds that a worker needs to start, and then something of its own
WORTH_GOING_ON = 30.0
SHUT = ("launch", "publish", "sweep")
Say = Callable[[str, Trial], None]


@dataclass(frozen=True)
class Look:
    """A task to be looked at, found to be sound; nothing is written yet."""

    asked: Asked
    recipe: Recipe
    layout: RunLayout


def prepared(asked: Asked) -> Look:
    """Checks that a task can be looked at.

    Raises:
        RecipeError: with every problem found.
        UsageError: there are no training rows, or the folder holds something else.
    """
    recipe = asked.recipe({})
    if recipe.data.train is None:
        raise UsageError("data.train: missing; advice is about training rows")
    layout = RunLayout(Path(f"{recipe.output_dir or f'runs/{recipe.name}'}-advice"))
    own = {
        layout.recipe, layout.plan, layout.evidence, layout.advice, layout.advised, layout.race,
        layout.events, layout.trackers, layout.examples, layout.log(0).parent,
    }  # fmt: skip
    if layout.root.exists() and (not layout.root.is_dir() or set(layout.root.iterdir()) - own):
        raise UsageError(f"{layout.root} holds something else than advice; give output_dir=ANOTHER")
    return Look(asked, recipe, layout)


def look(made: Look, *, quiet: bool) -> Advice:
    """Looks, by a worker, and files the evidence, the advice and the advised recipe.

    Raises:
        PlanError: the base or the data can't be read.
        WorkerFailed: looking failed.
    """
    raw = written(dict(made.asked.raw), ZERO_SHOT)
    for key in SHUT:
        raw.pop(key, None)
    asked = replace(made.asked, raw=raw)
    plan = compile_plan(asked.recipe({}), offline=asked.offline)
    layout = made.layout
    write_text(layout.recipe, yaml.safe_dump(dict(made.asked.raw), sort_keys=False, allow_unicode=True))
    write_text(layout.plan, plan.model_dump_json(indent=1) + "\n")
    code = launch(worker_command(layout.root, "advise"), quiet=quiet)
    if code:
        raise WorkerFailed(f"looking at the task failed, in {layout.root}", code)
    advice = advise(Evidence.model_validate_json(layout.evidence.read_text(encoding="utf-8")))
    file(made, advice)
    return advice


def file(made: Look, advice: Advice) -> None:
    """Writes the advice and the recipe that follows it."""
    write_json(made.layout.advice, advice.model_dump(mode="json"))
    chosen, said = (
        advice.chosen,
        [f"# tlscale advise: {advice.word}. {advice.chosen.name}: {advice.chosen.why}."],
    )
    said += [f"# {reason}" for reason in advice.reasons]
    raw = written(dict(made.asked.raw), chosen)
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    write_text(
        made.layout.advised, "\n".join(said) + f"\n#\n#   tlscale run {made.layout.advised}\n" + text
    )


def race(made: Look, advice: Advice, seconds: float, say: Say) -> Advice:
    """Trains the first few proposals, each for an even share of what is left, and reorders them.

    From half of its training on, one whose validation loss is above the median of those before it is
    stopped, as in sweeps; what it leaves of its time goes to the others.

    Raises:
        UsageError: no rows can be held out to judge by, or Optuna is not installed.
    """
    data = made.recipe.data
    raw = dict(made.asked.raw)
    if data.validation is None and not data.validation_split:
        if advice.evidence.classes and advice.evidence.fewest < FEWEST_TO_HOLD_OUT:
            raise UsageError(
                f"--race: {advice.evidence.fewest} rows in the rarest class are too few to hold some out; "
                "give data.validation"
            )
        raw["data"] = {**raw["data"], "validation_split": HELD_OUT}
    metric = (made.recipe.evaluate.target or DEFAULTS[made.recipe.model.task])[0]
    runners = advice.proposals[:MOST_RACED]
    ended = _raced(made, raw, runners, metric, seconds, say)
    raced = reordered(advice, metric, ended)
    file(made, raced)
    return raced


def _raced(
    made: Look, raw: dict[str, Any], runners: Sequence[Proposal], metric: str, seconds: float, say: Say
) -> dict[str, Trial]:
    """Every runner in turn; those that ran out of time go on with what the others have left over."""
    end = time.monotonic() + seconds
    ended: dict[str, Trial] = {}

    def run(proposal: Proposal, until: float) -> None:
        others = [trial for name, trial in ended.items() if name != proposal.name]
        judge = space.race(others, warmup=LOOKS // 2)
        begun = ended.get(proposal.name, _new(proposal)).model_copy(update={"reason": None})
        ended[proposal.name] = carry_out(
            replace(made.asked, raw=written(raw, proposal)),
            begun,
            SweepLayout(made.layout.race),
            proposal.name,
            wanted=Wanted(metric, None, looks=True),
            hopeless=judge.hopeless,
            until=until,
        )
        say(proposal.name, ended[proposal.name])

    for index, proposal in enumerate(runners):
        now = time.monotonic()
        run(proposal, now + (end - now) / (len(runners) - index))
    late = [proposal for proposal in runners if ended[proposal.name].reason == OUT_OF_TIME]
    for index, proposal in enumerate(late):
        now = time.monotonic()
        share = (end - now) / (len(late) - index)
        if share > WORTH_GOING_ON:
            run(proposal, now + share)
    return ended


def _new(proposal: Proposal) -> Trial:
    return Trial(number=0, state="running", parameters={}, folder=f"{proposal.name}/000")


def reordered(advice: Advice, metric: str, ended: Mapping[str, Trial]) -> Advice:
    """The advice with its proposals in the order of a race; what came to no end stays behind."""
    found = {name: trial.value for name, trial in ended.items()}
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0

    def place(proposal: Proposal) -> tuple[bool, float]:
        value = found.get(proposal.name)
        return value is None, 0.0 if value is None else sign * value

    values = {name: value for name, value in found.items() if value is not None}
    if not values:
        more = "The race came to no result in its time; the order is that of the evidence."
        return advice.model_copy(
            update={"reasons": (*advice.reasons, more), "metric": metric, "race": found}
        )
    proposals = tuple(sorted(advice.proposals, key=place))
    listed = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    early = {name for name, trial in ended.items() if trial.state == "pruned"}
    hopeless = [name for name in ended if name in early and ended[name].reason != OUT_OF_TIME]
    stopped = f" Stopped early as hopeless: {', '.join(hopeless)}." if hopeless else ""
    word = advice.word
    if proposals[0].name == ZERO_SHOT.name:
        word = "zero-shot suffices"
    elif ZERO_SHOT.name in values or word == "too little to tell":
        word = "transfer"
    changes: dict[str, Any] = {
        "word": word, "proposals": proposals, "metric": metric, "race": found,
        "reasons": (*advice.reasons, f"Raced on the validation rows, by {metric}: {listed}.{stopped}"),
    }  # fmt: skip
    return advice.model_copy(update=changes)
