"""Draws the settings of the next trial from the trials before it, by Optuna.

Nothing is kept in Optuna: a study is made anew from the sweep's own log for every draw, and every draw has
a seed of its own. So a sweep that was interrupted goes on exactly as one that was not.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from tlscale.errors import UsageError
from tlscale.recipe.search import Space, Sweep
from tlscale.report.sweeps import Trial

STARTUP = 5
WARMUP_LOSSES = 1
MISSING = "sweeps and races need optuna; install it with: pip install 'tlscale[sweep]'"


class Draw:
    """The settings of one trial, and whether its losses so far are worth going on with."""

    def __init__(self, parameters: dict[str, JsonValue], trial: Any) -> None:
        self.parameters = parameters
        self._trial = trial
        self._told = 0

    def hopeless(self, losses: Sequence[float]) -> bool:
        """Whether the validation loss is above the median of earlier trials at the same point.

        Li et al. 2020 (arXiv:1810.05934) discuss rules of this kind; this is Optuna's median rule.
        """
        if self._trial is None:
            return False
        for step in range(self._told, len(losses)):
            if math.isfinite(losses[step]):
                self._trial.report(losses[step], step)
        self._told = len(losses)
        return bool(losses and self._trial.should_prune())


def race(before: Sequence[Trial], *, warmup: int) -> Draw:
    """A contender without settings to draw, judged by those `before` it from the look after `warmup` on.

    Raises:
        UsageError: Optuna is not installed.
    """
    optuna = _optuna()
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=warmup),
        direction="minimize",
    )
    study.add_trials([_frozen(trial, {}, {}, 1.0) for trial in before if trial.state != "failed"])
    return Draw({}, study.ask({}))


def draw(
    sweep: Sweep,
    parameters: Mapping[str, Space],
    before: Sequence[Trial],
    *,
    higher_is_better: bool,
    seed: int,
    fixed: Mapping[str, JsonValue] | None = None,
) -> Draw:
    """The next trial's settings, given all earlier trials.

    Args:
        sweep: The sampler, and whether losses decide on an early end.
        parameters: What is searched.
        before: Earlier trials, running ones included.
        higher_is_better: Whether a trial's value is.
        seed: Of this draw alone.
        fixed: Settings to take as they are; the others are drawn.

    Raises:
        UsageError: Optuna is not installed.
    """
    optuna = _optuna()
    spaces = {name: _distribution(space) for name, space in parameters.items()}
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, constant_liar=True, multivariate=False
        ),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "grid": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=STARTUP - 1, n_warmup_steps=WARMUP_LOSSES)
        if sweep.prune
        else optuna.pruners.NopPruner()
    )
    # trials are compared by their losses while they run, which are better when lower
    study = optuna.create_study(sampler=samplers[sweep.sampler](), pruner=pruner, direction="minimize")
    sign = -1.0 if higher_is_better else 1.0
    study.add_trials(
        [_frozen(trial, parameters, spaces, sign) for trial in before if trial.state != "failed"]
    )
    if fixed:
        study.enqueue_trial({name: _coded(parameters[name], value) for name, value in fixed.items()})
    asked = study.ask(spaces)
    return Draw(
        {name: _decoded(parameters[name], value) for name, value in asked.params.items()},
        asked if sweep.prune else None,
    )


def grid(parameters: Mapping[str, Space]) -> tuple[dict[str, JsonValue], ...]:
    """Every combination of the choices, the last setting changing fastest."""
    names = list(parameters)
    made = itertools.product(*(parameters[name].choices for name in names))
    return tuple(dict(zip(names, values, strict=True)) for values in made)


def contains(space: Space, value: JsonValue) -> bool:
    """Whether a setting could have been drawn."""
    if space.choices:
        return value in space.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    assert space.low is not None
    assert space.high is not None
    return space.low <= value <= space.high and (isinstance(value, int) or not space.whole)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError(MISSING) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _frozen(trial: Trial, parameters: Mapping[str, Space], spaces: Mapping[str, Any], sign: float) -> Any:
    optuna = _optuna()
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[trial.state.upper()],
        params={name: _coded(parameters[name], value) for name, value in trial.parameters.items()},
        distributions=dict(spaces),
        value=sign * trial.value if trial.state == "complete" and trial.value is not None else None,
        intermediate_values={step: loss for step, loss in enumerate(trial.losses) if math.isfinite(loss)},
    )


def _distribution(space: Space) -> Any:
    distributions = _optuna().distributions
    if space.choices:
        return distributions.CategoricalDistribution([json.dumps(choice) for choice in space.choices])
    kind = distributions.IntDistribution if space.whole else distributions.FloatDistribution
    return kind(space.low, space.high, log=space.log)


def _coded(space: Space, value: JsonValue) -> JsonValue:
    """Choices are text for Optuna, which takes no lists and mappings."""
    return json.dumps(value) if space.choices else value


def _decoded(space: Space, value: Any) -> JsonValue:
    """A drawn value as a person would write it: four digits, and still inside the range."""
    if not space.choices and isinstance(value, float):
        return min(max(float(f"{value:.4g}"), float(space.low or 0)), float(space.high or 0))
    made: JsonValue = json.loads(value) if space.choices else value
    return made
