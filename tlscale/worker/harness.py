"""Tasks named `lm_eval:NAME`: the harness's prompts and metrics, our scorer, our files."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from tlscale.errors import UsageError
from tlscale.evaluation import filing
from tlscale.evaluation.predictors.language import LanguagePredictor
from tlscale.evaluation.tasks.run import Place, Predictor
from tlscale.evaluation.types import Measurement, Outcome

PREFIX = "lm_eval:"


def score_harness(
    name: str, predictor: Predictor, place: Place, *, shots: int, limit: int | None
) -> tuple[Measurement, ...]:
    """Scores a task of lm-evaluation-harness, or each of a group, and files it like any other.

    Its code is run, and its data come from the Hub unless its definition says otherwise. 0 shots mean the
    task's own number.

    Raises:
        UsageError: the harness isn't installed, has no such task, or something else than a language
            model answers.
        TlscaleError: the task fails.
    """
    if not isinstance(predictor, LanguagePredictor) or not predictor.shares:
        raise UsageError(f"{name}: tasks of lm-evaluation-harness are answered by a language model (lm)")
    try:
        harness: Any = importlib.import_module("tlscale.evaluation.harness.tasks")
    except ImportError as error:
        raise UsageError(
            f"{name}: needs the package lm-eval ({error}); pip install 'tlscale[lm-eval]'"
        ) from error
    found = harness.evaluate(name.removeprefix(PREFIX), predictor.scorer, shots=shots or None, limit=limit)
    made: list[Measurement] = []
    for one in found:
        suite = f"lm_eval-{one.task}" + (f"-{shots}shot" if shots else "")
        made += _filed(suite, one, predictor, place)
    return tuple(made)


def _filed(suite: str, one: Any, predictor: Predictor, place: Place) -> Sequence[Measurement]:
    outcomes = [
        Outcome(
            item=index,
            where=f"{one.task}[{sample.item}]",
            reference=sample.target,
            values=dict(sample.metrics),
        )
        for index, sample in enumerate(one.samples)
    ]
    path = place.layout.outcomes(place.arm, suite)
    made = [
        Measurement(
            suite=suite,
            arm=place.arm,
            metric=metric,
            value=value,
            stderr=stderr,
            n=len(outcomes),
            predictor=predictor.name,
            stage=place.stage,
            outcomes=str(path.relative_to(place.layout.root)),
        )
        for metric, (value, stderr) in one.metrics.items()
    ]
    if place.rank == 0:
        filing.file(outcomes, made, place.layout, suite=suite, arm=place.arm)
    return made
