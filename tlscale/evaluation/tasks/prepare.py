"""A task with its settings -> every item with its prompt, ready to be asked, and how it will be judged."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tlscale.errors import DataError, UsageError
from tlscale.evaluation.requests import Result
from tlscale.evaluation.tasks import calibration
from tlscale.evaluation.tasks.outcome import outcome
from tlscale.evaluation.tasks.prompt import Item, Render, Style, item
from tlscale.evaluation.tasks.rows import PLUGIN_ERRORS, read_documents, said
from tlscale.evaluation.tasks.shots import Select, selector
from tlscale.evaluation.tasks.task import Document, Task
from tlscale.evaluation.types import Outcome
from tlscale.recipe.evaluate import Calibration, Selection

Judge: TypeAlias = Callable[[int, Sequence[Result]], Outcome]
Finish: TypeAlias = Callable[[Sequence[Outcome]], Sequence[Outcome]]
Overlaps: TypeAlias = Callable[[Sequence[Document]], Mapping[int, str]]

# Labelled examples that a temperature is fitted to.
FITTED_TO = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """How a task is run: its shots, how they are chosen, what is calibrated, how much is scored.

    Without a `selection` the task's own is taken.
    `contaminated` names the documents that the training data holds, by index, and how.
    """

    shots: int = 0
    selection: Selection | None = None
    seed: int = 0
    order_seed: int | None = None
    max_rows: int | None = None
    folder: Path | None = None
    calibrations: tuple[Calibration, ...] = ()
    render: Render | None = None
    contaminated: Overlaps | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task ready to run.

    `items` beyond the first `scored` are asked only so that `finish` can calibrate by them. `judge`
    makes the outcome of an item from the results of its requests; `finish` gets all outcomes, in order,
    and gives those of the scored ones.
    """

    name: str
    kind: str
    items: tuple[Item, ...]
    scored: int
    judge: Judge
    finish: Finish
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    task: Task | None = None
    train: tuple[Document, ...] = ()
    notes: tuple[str, ...] = field(default=())


def suite_name(task: str, setting: Setting) -> str:
    """How measurements and files call a task under a setting."""
    name = task if setting.shots == 0 else f"{task}-{setting.shots}shot"
    return name if setting.order_seed is None else f"{name}-order{setting.order_seed}"


def prepare(task: Task, setting: Setting, *, needs_train: bool = False) -> Prepared:
    """Every item of `task` under `setting`.

    Args:
        needs_train: Whether whoever answers learns from the training rows itself; shots are then rows of
            each answer, 0 all of them, and stand in no prompt.

    Raises:
        DataError: the rows are not what the task needs; see `read_documents`.
        UsageError: the setting asks for what the task doesn't have.
    """
    _fits(task, setting, needs_train)
    fits_temperature = "temperature" in setting.calibrations
    with_train = bool(setting.shots or needs_train or fits_temperature)
    found = read_documents(task, setting.folder, with_train=with_train)
    task = replace(task, labels=found.labels)
    test = _sampled(found.test, setting.max_rows, setting.seed)
    choose = _selector(task, found.train, setting, 0 if needs_train else setting.shots)
    style = Style(setting.render, "pmi" in setting.calibrations, "contextual" in setting.calibrations)
    extra = _sampled(found.train, FITTED_TO, setting.seed + 1) if fits_temperature else ()
    items = tuple(_item(task, document, choose(document), style) for document in (*test, *extra))
    back = f"{task.name}: {found.kept_back:,} rows of the test serve as examples and are not scored"
    notes = (back,) if found.kept_back else ()
    tags = setting.contaminated(test) if setting.contaminated else None
    return Prepared(
        name=suite_name(task.name, setting),
        kind=task.kind,
        items=items,
        scored=len(test),
        judge=partial(_judge, task, items, found.labels),
        finish=partial(_finish, items, len(test), setting.calibrations, tags),
        metrics=_metrics(task, setting),
        labels=found.labels,
        task=task,
        train=_few(found.train, setting) if needs_train and setting.shots else found.train,
        notes=notes,
    )


def _few(train: Sequence[Document], setting: Setting) -> tuple[Document, ...]:
    """As many rows of each answer as there are shots, drawn by the seed, in file order."""
    groups: dict[str, list[int]] = {}
    for index, document in enumerate(train):
        groups.setdefault(str(document.answer), []).append(index)
    chosen: list[int] = []
    for answer, rows in groups.items():
        generator = random.Random(f"few {setting.seed} {answer}")
        chosen += generator.sample(rows, min(setting.shots, len(rows)))
    return tuple(train[index] for index in sorted(chosen))


def _selector(task: Task, train: Sequence[Document], setting: Setting, shots: int) -> Select:
    """Chooses examples, where the task has groups among those of the item's own."""

    def among(rows: Sequence[Document]) -> Select:
        return selector(
            setting.selection or task.selection,
            rows,
            shots=shots,
            seed=setting.seed,
            order_seed=setting.order_seed,
        )

    if not task.group or not shots:
        return among(train)
    groups: dict[str, list[Document]] = {}
    for document in train:
        groups.setdefault(document.tags.get(task.group, ""), []).append(document)
    by_group = {name: among(rows) for name, rows in groups.items()}

    def choose(document: Document) -> tuple[Document, ...]:
        name = document.tags.get(task.group, "")
        if name not in by_group:
            raise DataError(
                f"task {task.name}: {document.where}: no rows of {task.group} {name!r} for examples"
            )
        return by_group[name](document)

    return choose


def _fits(task: Task, setting: Setting, needs_train: bool) -> None:
    at = f"task {task.name}"
    if (setting.shots or needs_train or "temperature" in setting.calibrations) and not task.train:
        raise UsageError(f"{at}: it has no rows to take examples from; only 0 shots are possible")
    if task.kind == "rolling" and setting.shots:
        raise UsageError(f"{at}: examples make no sense before a rolling perplexity; use 0 shots")
    chooses = task.kind in ("choice", "classification")
    for one in setting.calibrations:
        if not chooses:
            raise UsageError(f"{at}: calibration {one} is for choices, this is {task.kind}")
    if "contextual" in setting.calibrations and task.prompt is None:
        raise UsageError(
            f"{at}: contextual calibration needs the task's prompt of an arbitrary text; give "
            "Task.prompt, or a YAML prompt with {text}"
        )
    if "pmi" in setting.calibrations and task.unconditional is None:
        raise UsageError(f"{at}: pmi needs the end of the prompt alone; give Task.unconditional")
    if "batch" in setting.calibrations and task.kind != "classification":
        raise UsageError(f"{at}: batch calibration needs the same choices for all items")


def _item(task: Task, document: Document, shots: tuple[Document, ...], style: Style) -> Item:
    try:
        return item(task, document, shots, style)
    except PLUGIN_ERRORS as error:
        raise UsageError(
            f"task {task.name}: {document.where}: the prompt can't be made: {said(error)}"
        ) from error


def _sampled(documents: tuple[Document, ...], limit: int | None, seed: int) -> tuple[Document, ...]:
    """At most `limit` documents, drawn by `seed`, in file order."""
    if limit is None or len(documents) <= limit:
        return documents
    chosen = sorted(random.Random(f"limit {seed}").sample(range(len(documents)), limit))
    return tuple(documents[index] for index in chosen)


def _metrics(task: Task, setting: Setting) -> tuple[str, ...]:
    names = list(task.metrics)
    names += [f"acc_{one}" for one in setting.calibrations if one != "temperature"]
    if "temperature" in setting.calibrations:
        names += ["nll", "nll_temperature", "ece", "ece_temperature"]
    if setting.contaminated is not None:
        names += ["contaminated", *(f"{name}_clean" for name in task.metrics)]
    return tuple(dict.fromkeys(names))


def _judge(
    task: Task, items: Sequence[Item], labels: Sequence[str], index: int, results: Sequence[Result]
) -> Outcome:
    try:
        return outcome(task, items[index], results, index, labels)
    except PLUGIN_ERRORS as error:
        where = items[index].document.where
        raise UsageError(f"task {task.name}: {where}: the answer can't be judged: {said(error)}") from error


def _finish(
    items: Sequence[Item],
    scored: int,
    calibrations: Sequence[Calibration],
    contaminated: Mapping[int, str] | None,
    outcomes: Sequence[Outcome],
) -> Sequence[Outcome]:
    found, extra = list(outcomes[:scored]), outcomes[scored:]
    right = [i.document.right or (int(i.document.answer or 0),) for i in items] if calibrations else []
    if "batch" in calibrations:
        found = calibration.batch(found, right[:scored])
    if "temperature" in calibrations:
        first = [answers[0] for answers in right]
        at = calibration.temperature([o.scores or () for o in extra], first[scored:])
        found = calibration.tempered(found, first[:scored], at)
    if contaminated is not None:
        found = [_tagged(one, contaminated.get(index)) for index, one in enumerate(found)]
    return found


def _tagged(outcome: Outcome, how: str | None) -> Outcome:
    values = {**(outcome.values or {}), "contaminated": float(how is not None)}
    tags = {**(outcome.tags or {}), **({} if how is None else {"contaminated": how})}
    return outcome.model_copy(update={"values": values, "tags": tags or None})
