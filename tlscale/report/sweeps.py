"""What a sweep leaves in its folder, as frozen values that travel as `sweep.json`. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from tlscale.recipe.base import Frozen

State = Literal["running", "complete", "pruned", "failed"]


class Trial(Frozen):
    """One try: the settings, what came of them, and its run directory, relative to the sweep's folder.

    `value` is the metric on the validation rows, `retention` that on the retention rows where there are
    some. `losses` are its validation losses while it trained, in nats. `seconds` is wall time, planning
    included. `reason` says why it failed or was stopped.
    """

    number: int
    state: State
    parameters: dict[str, JsonValue]
    folder: str
    value: float | None = None
    retention: float | None = None
    losses: tuple[float, ...] = ()
    seconds: float | None = None
    reason: str = ""


class Search(Frozen):
    """All trials of one arm: `tuned` is the recipe's own, the others are control arms.

    `best` is the number of the best complete trial; `None` where there is none.
    """

    arm: str
    metric: str
    higher_is_better: bool
    retention_metric: str | None
    parameters: tuple[str, ...]
    trials: tuple[Trial, ...]
    best: int | None

    @property
    def chosen(self) -> Trial | None:
        """The best trial."""
        return next((trial for trial in self.trials if trial.number == self.best), None)


class SweepResult(Frozen):
    """A whole sweep. Everything in it was measured on validation rows; the test rows were not read."""

    version: Literal[1] = 1
    name: str
    fingerprint: str
    searches: tuple[Search, ...]


def front(search: Search) -> tuple[Trial, ...]:
    """The complete trials that no other beats on both target and retention, best target first.

    A retention metric is nll, perplexity or accuracy; the first two are better when lower.
    """
    from tlscale.evaluation.types import HIGHER_IS_BETTER

    if search.retention_metric is None:
        return ()
    target = 1.0 if search.higher_is_better else -1.0
    kept = 1.0 if HIGHER_IS_BETTER[search.retention_metric] else -1.0
    points = [
        (trial, target * trial.value, kept * trial.retention)
        for trial in search.trials
        if trial.state == "complete" and trial.value is not None and trial.retention is not None
    ]
    best = [
        (trial, a)
        for trial, a, b in points
        if not any(c >= a and d >= b and (c > a or d > b) for _, c, d in points)
    ]
    return tuple(trial for trial, _ in sorted(best, key=lambda pair: -pair[1]))
