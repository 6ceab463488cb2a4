"""From a task to its documents, each checked before anything is scored."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlscale.errors import DataError, TlscaleError, unknown
from tlscale.evaluation.tasks.task import Document, MakeDocument, Rows, Task
from tlscale.recipe.types import Source
from tlscale.sources import Row, records
from tlscale.sources.rows import sort_labels

# What code of a plugin may raise; everything else is a fault of ours.
PLUGIN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
SHOWN = 5
# What a task's own function calls the row that it is given, not knowing where it stands.
BARE = "row"


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a task: those to be scored, and those that examples are taken from.

    `kept_back` counts documents of the test that serve as examples, and are therefore not scored.
    """

    test: tuple[Document, ...]
    train: tuple[Document, ...]
    labels: tuple[str, ...]
    kept_back: int = 0


def read_documents(task: Task, folder: Path | None, *, with_train: bool, seed: int = 0) -> Documents:
    """All documents of `task`, in file order.

    Args:
        folder: Of local data; `None` where there is none, and the Hub is asked.
        with_train: Whether the rows that examples come from are needed.

    Raises:
        DataError: the rows can't be found, lack a column, have an answer that is no choice, an empty
            choice, or an id twice; or the task's own code fails on a row.
    """
    test, tested = _documents(task, task.test, folder)
    train: tuple[Document, ...] = ()
    kept_back = 0
    if with_train and task.train:
        train, trained = _documents(task, task.train, folder)
        if tested == trained:
            known, every = {document.where for document in train}, len(test)
            test = tuple(document for document in test if document.where not in known)
            kept_back = every - len(test)
    labels = task.labels
    if task.kind == "classification":
        if not labels:
            labels = sort_labels({str(d.answer) for d in (*train, *test)} - {task.none})
        test, train = (tuple(_labelled(task, d, labels) for d in part) for part in (test, train))
    for document in (*test, *train):
        _check(task, document)
    _check_ids(task, test)
    return Documents(test, train, labels, kept_back)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, plain, .gz or .bz2."""
    opened = {".bz2": bz2.open, ".gz": gzip.open}.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as file:
        return file.read().removesuffix("\n").split("\n")


def _documents(task: Task, places: Sequence[Rows], folder: Path | None) -> tuple[tuple[Document, ...], str]:
    """The documents, and the file or data set that they come from."""
    place, path = _there(task, places, folder)
    rows = _rows(task, place, path)
    start, end = (int(len(rows) * side) for side in place.span)
    make = place.document or task.document
    found = tuple(_made(task, make, row, number) for number, row in enumerate(rows[start:end]))
    source = str(path) if path else f"hub:{place.hub}/{place.name}[{place.split}]"
    if not found:
        raise DataError(f"task {task.name}: {source}: no rows")
    return found, source


def _there(task: Task, places: Sequence[Rows], folder: Path | None) -> tuple[Rows, Path | None]:
    looked = []
    for place in places:
        if place.path is not None:
            path = Path(place.path).expanduser()
            if not path.is_absolute():
                if folder is None:
                    looked.append(f"{place.path} below evaluate.data_dir, which is not set")
                    continue
                path = folder / path
            if path.exists():
                return place, path
            looked.append(str(path))
        elif place.hub is not None:
            return place, None
    raise DataError(
        f"task {task.name}: its rows are nowhere to be found: {'; '.join(looked)}; set evaluate.data_dir "
        "(--data-dir, or the environment variable TLSCALE_DATA) to the folder that holds them"
    )


def _rows(task: Task, place: Rows, path: Path | None) -> Sequence[Row]:
    if path is None:
        return records(Source(hub=place.hub, name=place.name, split=place.split))
    if place.reader is None:
        return records(Source(path=str(path)))
    try:
        return [Row(one, f"{path.name}[{i}]") for i, one in enumerate(place.reader(path))]
    except PLUGIN_ERRORS as error:
        raise DataError(f"task {task.name}: {path} can't be read: {said(error)}") from error


def _made(task: Task, make: MakeDocument, row: Row, number: int) -> Document:
    try:
        made = make(row.values)
    except TlscaleError as error:
        told = str(error).removeprefix(f"{BARE}: ")
        raise DataError(f"task {task.name}: {row.where}: {told}") from error
    except KeyError as error:
        column, there = str(error.args[0]), tuple(map(str, row.values))
        raise DataError(
            f"task {task.name}: {row.where}: {column}: {unknown(column, there, 'column')}"
        ) from error
    except PLUGIN_ERRORS as error:
        raise DataError(
            f"task {task.name}: {row.where}: the task's own code failed: {said(error)}"
        ) from error
    where = made.where or row.where
    return replace(made, where=where, id=made.id or f"{number}")


def said(error: BaseException) -> str:
    """An error of somebody else's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _labelled(task: Task, document: Document, labels: tuple[str, ...]) -> Document:
    """`document` with the labels as choices, its own answer as index, and the task's prompt as query."""
    answer: int | str | None = document.answer
    if isinstance(answer, str) and task.none and answer == task.none:
        answer = None
    elif isinstance(answer, str):
        if answer not in labels:
            raise DataError(
                f"task {task.name}: {document.where}: label {answer!r}: {unknown(answer, labels, 'label')}"
            )
        answer = labels.index(answer)
    query = document.query or (task.prompt(document.text) if task.prompt else document.text)
    return replace(
        document,
        choices=document.choices or labels,
        answer=answer,
        query=query,
        text=document.text or query,
    )


def _check(task: Task, document: Document) -> None:
    at = f"task {task.name}: {document.where}"
    if task.kind in ("choice", "classification"):
        options = document.contexts or document.choices
        if any(not option.strip() for option in document.choices) or not document.choices:
            raise DataError(
                f"{at}: choice {_first_empty(document.choices)} is empty, and nothing can't be scored; "
                "drop the row or fix the task"
            )
        right = (
            document.right if task.none and document.answer is None else (document.answer, *document.right)
        )
        for index in right:
            if not isinstance(index, int) or not 0 <= index < len(options):
                raise DataError(
                    f"{at}: the right answer is {index!r}, out of range: there are {len(options)} choices, "
                    f"numbered 0 to {len(options) - 1}"
                )
    elif task.kind in ("likelihood", "generation", "embedding"):
        if not isinstance(document.answer, str) or not document.answer.strip():
            raise DataError(f"{at}: {task.kind} needs a text as the right answer, not {document.answer!r}")
    elif not document.text:
        raise DataError(f"{at}: the text is empty")


def _first_empty(choices: Sequence[str]) -> int:
    return next((i for i, choice in enumerate(choices) if not choice.strip()), 0)


def _check_ids(task: Task, documents: Sequence[Document]) -> None:
    seen: dict[str, str] = {}
    twice = []
    for document in documents:
        if document.id in seen:
            twice.append(f"{document.id!r} at {seen[document.id]} and {document.where}")
        seen.setdefault(document.id, document.where)
    if twice:
        more = f" and {len(twice) - SHOWN} more" if len(twice) > SHOWN else ""
        raise DataError(
            f"task {task.name}: ids are there twice, so items can't be paired: "
            f"{'; '.join(twice[:SHOWN])}{more}; make Document.id unique, or leave it out"
        )
