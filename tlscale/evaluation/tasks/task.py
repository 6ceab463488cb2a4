"""What a task is: where its rows are, how a row becomes a document, what is asked and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tlscale.errors import UsageError, unknown
from tlscale.recipe.evaluate import Selection

Kind = Literal["choice", "likelihood", "generation", "classification", "embedding", "rolling"]
Values: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Document:
    """One item: what is asked, and what is right.

    Attributes:
        query: The prompt up to where the answer begins, without a blank at its end.
        choices: The possible answers, without the blank before them. For `classification`, empty: the
            task's labels are meant.
        answer: Index of the right choice; the right text for `likelihood`, `generation` and `embedding`;
            a label's name or index for `classification`, or the task's `none` for an item that belongs
            to no class; `None` for `rolling`.
        right: All right choices where there may be several (TruthfulQA's MC2); by default `answer` alone.
        contexts: For Winograd schemas: the prompts that compete, one answer (the only choice) after each.
        text: The bare input, for predictors that read no prompt, such as sentence embeddings, and the
            whole text for `rolling`.
        shown: The answer as it is shown in an example, where it is longer than `answer`.
        description: Stands before the examples in place of the task's own.
        image: A path, bytes or a pixel array, for image-text predictors.
        tags: Groups that scores are split by, such as a bias category.
        id: Unique in the task; by default the place of the row.
        where: The file and line of the row; filled in by the reader.
    """

    query: str = ""
    choices: tuple[str, ...] = ()
    answer: int | str | None = None
    right: tuple[int, ...] = ()
    contexts: tuple[str, ...] = ()
    text: str = ""
    shown: str = ""
    description: str = ""
    image: Any = None
    tags: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    where: str = ""


MakeDocument: TypeAlias = Callable[[Mapping[str, Any]], Document]


@dataclass(frozen=True, slots=True)
class Rows:
    """One place where rows may be: a file below the folder of local data, or a data set of the Hub.

    `reader` reads a file whose form is not one of csv, tsv, json, jsonl, parquet, txt; it gets the path,
    which may be a folder, and gives one mapping a row. `document` replaces the task's own, where this
    place has other columns. `span` is the part of the rows to use: a file that is all there is can be
    shared between test and train, and rows that examples come from are then not scored.
    """

    path: str | None = None
    hub: str | None = None
    name: str | None = None
    split: str = "train"
    reader: Callable[[Path], Iterable[Mapping[str, Any]]] | None = None
    document: MakeDocument | None = None
    span: tuple[float, float] = (0.0, 1.0)


def _nothing(document: Document, chosen: int, scores: tuple[float, ...]) -> Values:
    return {}


def _stripped(text: str) -> str:
    return text.strip()


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation task.

    Attributes:
        name: Lower case, as on the command line and in file names.
        summary: One line for `tlscale tasks`.
        kind: What is asked of the model.
        test: Places of the rows to be scored; the first that is there is read.
        train: Places of the rows that examples are taken from; none means that only 0 shots are possible.
        document: Makes a document of a row.
        metrics: The first is the one that comparisons look at.
        description: Stands before the examples.
        delimiter: Between query and answer.
        separator: Between examples.
        labels: Class names of a `classification` task, by default those of its rows, sorted.
        none: The answer of items that belong to no class, in tests of out-of-scope detection.
        group: A tag; examples are taken from rows with the same value of it as the item.
        selection: How examples are chosen, unless the evaluation says otherwise.
        prompt: Makes the query of a `classification` task from a text, for likelihoods and calibration.
        template: How a label is put for embeddings and image-text models; `{label}` is the name.
        hypothesis: How a label is put for entailment.
        unconditional: The end of the prompt alone, for choices by pointwise mutual information.
        stop: Strings that end a generation.
        max_new_tokens: Longest generation.
        extract: From a generation to the answer that is compared.
        extra: More values of an item, from its document, the chosen index and the score of each choice.
    """

    name: str
    summary: str
    kind: Kind
    test: tuple[Rows, ...]
    metrics: tuple[str, ...]
    document: MakeDocument
    train: tuple[Rows, ...] = ()
    description: str = ""
    delimiter: str = " "
    separator: str = "\n\n"
    labels: tuple[str, ...] = ()
    none: str = ""
    group: str = ""
    selection: Selection = "fixed"
    prompt: Callable[[str], str] | None = None
    template: str = "{label}"
    hypothesis: str = "This example is {label}."
    unconditional: str | None = None
    stop: tuple[str, ...] = ("\n\n",)
    max_new_tokens: int = 64
    extract: Callable[[str], str] = _stripped
    extra: Callable[[Document, int, tuple[float, ...]], Values] = _nothing

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(
                f"task {self.name}: {self.kind!r}: {unknown(self.kind, get_args(Kind), 'kind')}"
            )
        if self.selection not in get_args(Selection):
            raise UsageError(
                f"task {self.name}: {self.selection!r}: "
                f"{unknown(self.selection, get_args(Selection), 'selection')}"
            )
        if not self.test or not self.metrics:
            raise UsageError(f"task {self.name}: needs a place of its rows in test, and a metric")
