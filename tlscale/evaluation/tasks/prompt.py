"""From a document and its examples to the requests that a language model answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from tlscale.evaluation.requests import Choices, Generation, Likelihood, Request, Rolling
from tlscale.evaluation.tasks.task import Document, Task

Message: TypeAlias = dict[str, str]
Render: TypeAlias = Callable[[list[Message]], str]
CONTENT_FREE = ("N/A", "[MASK]", "")


@dataclass(frozen=True, slots=True)
class Style:
    """How prompts are put together.

    `render` turns chat messages into the text that the model's chat template makes of them, ending where
    the assistant's turn begins; without it, prompts are plain text. `pmi` and `contextual` ask for what
    those calibrations need.
    """

    render: Render | None = None
    pmi: bool = False
    contextual: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """A document with its examples, and what is asked of a language model for it."""

    document: Document
    shots: tuple[Document, ...]
    requests: tuple[Request, ...]


def item(task: Task, document: Document, shots: tuple[Document, ...], style: Style) -> Item:
    """What is asked for `document` after the examples `shots`.

    Content-free requests for contextual calibration (Zhao et al. 2021, arXiv:2102.09690) come last.
    """
    found = requests(task, document, shots, style)
    if style.contextual and task.prompt is not None:
        for blank in CONTENT_FREE:
            empty = replace(document, query=task.prompt(blank), text=blank)
            found += requests(task, empty, shots, style)
    return Item(document, shots, found)


def requests(
    task: Task, document: Document, shots: Sequence[Document], style: Style
) -> tuple[Request, ...]:
    """The requests of one document, by the kind of `task`."""
    if task.kind == "rolling":
        return (Rolling(document.id, document.text),)
    # After a chat template the answer begins a turn of its own, with no blank before it.
    blank = "" if style.render else task.delimiter
    if document.contexts:
        return tuple(
            Likelihood(
                document.id, context(task, document, option, shots, style), blank + document.choices[0]
            )
            for option in document.contexts
        )
    before = context(task, document, document.query, shots, style)
    if task.kind in ("choice", "classification"):
        base = task.unconditional if style.pmi else None
        return (Choices(document.id, before, tuple(blank + c for c in document.choices), base),)
    if task.kind == "likelihood":
        return (Likelihood(document.id, before, blank + str(document.answer)),)
    if task.kind == "generation":
        return (Generation(document.id, before, task.stop, task.max_new_tokens),)
    return ()


def context(task: Task, document: Document, query: str, shots: Sequence[Document], style: Style) -> str:
    """Everything before the answer, as one text; `query` is the document's, or one of its contexts."""
    described = document.description or task.description
    if style.render is not None:
        return style.render(messages(described, query, shots))
    parts = [example(task, shot) for shot in shots]
    return described + task.separator.join([*parts, query])


def messages(described: str, query: str, shots: Sequence[Document]) -> list[Message]:
    """The same as a conversation, each example a turn of user and assistant."""
    found = [{"role": "system", "content": described.strip()}] if described.strip() else []
    for shot in shots:
        found.append({"role": "user", "content": question(shot)})
        found.append({"role": "assistant", "content": answer(shot)})
    return [*found, {"role": "user", "content": query}]


def example(task: Task, document: Document) -> str:
    """A document with its right answer, as it stands before the question."""
    return question(document) + task.delimiter + answer(document)


def question(document: Document) -> str:
    """What is asked; of competing contexts, the right one."""
    if document.contexts and isinstance(document.answer, int):
        return document.contexts[document.answer]
    return document.query


def answer(document: Document) -> str:
    """The right answer as text."""
    if document.shown:
        return document.shown
    if document.contexts:
        return document.choices[0]
    if isinstance(document.answer, int):
        return document.choices[document.answer]
    return str(document.answer or "")
