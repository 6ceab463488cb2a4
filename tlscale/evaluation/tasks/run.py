"""Runs prepared tasks through a predictor, shares the work between processes, and files what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tlscale.errors import DataError, TlscaleError, UsageError
from tlscale.evaluation import filing
from tlscale.evaluation.requests import Result
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.evaluation.types import Measurement
from tlscale.runs.layout import RunLayout

Collect: TypeAlias = Callable[[list[Any]], list[Any]]
Answers: TypeAlias = Iterator[tuple[int, tuple[Result, ...]]]


class Predictor(Protocol):
    """Who answers: a language model, an encoder, a classifier, an endpoint.

    `name` says how answers are obtained; `kinds` are the kinds of task that can be answered;
    `learns` says whether the task's training rows are used in place of examples in a prompt; `shares`
    whether it divides the work between processes itself: then each asks for all items and gets all answers.
    """

    name: str
    kinds: frozenset[str]
    learns: bool
    shares: bool

    def overflow(self, prepared: Prepared, numbers: Sequence[int]) -> tuple[int, ...]:
        """For each of the items `numbers`, how many tokens of its beginning would be lost."""
        ...

    def answer(self, prepared: Prepared, numbers: Sequence[int]) -> Answers:
        """The results of each of the items `numbers`, in any order: one for each of its requests.

        A predictor that reads no prompt gives one `ChoiceScores` an item.
        """
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Which arm is scored, where it is filed, and this process among the others."""

    layout: RunLayout
    arm: str
    stage: str | None
    rank: int
    world: int
    collect: Collect
    cut_share: float
    say: Callable[[str], None]


def run(prepared: Prepared, predictor: Predictor, place: Place) -> tuple[Measurement, ...]:
    """Scores `prepared`; the first process files outcomes and measurements.

    Every process answers its share, and all raise the same error.

    Raises:
        UsageError: the predictor can't answer this kind of task, or the task's code fails.
        DataError: more prompts than allowed are longer than the model's context.
    """
    if prepared.kind not in predictor.kinds:
        raise UsageError(
            f"{prepared.name}: {predictor.name} answers {', '.join(sorted(predictor.kinds))}, "
            f"and this is {prepared.kind}"
        )
    mine = list(range(len(prepared.items)))
    collect: Collect = list
    if not predictor.shares:
        mine, collect = mine[place.rank :: place.world], place.collect
    _check_length(prepared, collect(list(predictor.overflow(prepared, mine))), place)
    outcomes, problem = [], None
    try:
        for index, results in predictor.answer(prepared, mine):
            outcomes.append(prepared.judge(index, results))
    except TlscaleError as error:
        problem = error
    _raise_together(problem, place.collect)
    found = prepared.finish(sorted(collect(outcomes), key=lambda outcome: outcome.item))
    made = filing.measured(
        found,
        prepared.metrics,
        place.layout,
        suite=prepared.name,
        arm=place.arm,
        predictor=predictor.name,
        stage=place.stage,
    )
    if place.rank == 0:
        filing.file(found, made, place.layout, suite=prepared.name, arm=place.arm)
    return made


def _check_length(prepared: Prepared, overflow: Sequence[int], place: Place) -> None:
    lost = [count for count in overflow if count]
    if not lost:
        return
    share = len(lost) / len(prepared.items)
    told = (
        f"{prepared.name}: {len(lost):,} of {len(prepared.items):,} prompts ({share:.1%}) are longer than "
        f"the model's context and lose their beginning, up to {max(lost):,} tokens"
    )
    if share > place.cut_share:
        raise DataError(
            f"{told}; evaluate.cut_share allows {place.cut_share:.1%}: use fewer shots, or raise it"
        )
    place.say(told)


def _raise_together(problem: TlscaleError | None, collect: Collect) -> None:
    """Raises on every process what went wrong on one, so that none waits for the others."""
    said = [text for text in collect([None if problem is None else str(problem)]) if text is not None]
    if problem is not None:
        raise problem
    if said:
        raise TlscaleError(said[0])
