"""A task declared in YAML: columns and templates in place of Python."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from tlscale.errors import DataError, RecipeError, UsageError
from tlscale.evaluation.tasks.rows import BARE
from tlscale.evaluation.tasks.task import Document, Rows, Task
from tlscale.recipe.base import Frozen
from tlscale.recipe.evaluate import Selection
from tlscale.recipe.parse import parse_yaml
from tlscale.recipe.paths import missing_file
from tlscale.recipe.problems import problems_of
from tlscale.sources import Row, value

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Place(Frozen):
    """Rows of a task: a file, relative to the task's own, or a data set of the Hub."""

    path: str | None = Field(None, description="csv, tsv, json, jsonl, parquet or txt file.")
    hub: str | None = Field(None, description="A data set id on the Hub.")
    name: str | None = Field(None, description="Configuration of the Hub data set.")
    split: str = Field("train", description="Split of the Hub data set.")


class Written(Frozen):
    """A task as YAML says it; columns are names or templates such as `"{question}\\nAnswer:"`."""

    task: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the task.")
    kind: Literal["choice", "likelihood", "generation", "classification", "embedding", "rolling"]
    test: Place
    train: Place | None = Field(None, description="Rows that examples are taken from.")
    summary: str = Field("", description="One line for `tlscale tasks`.")
    prompt: str = Field("", description="The question, a column or a template.")
    choices: str | tuple[str, ...] = Field(
        (), description="A column that holds a list, or a template for each choice."
    )
    answer: str = Field(
        "", description="Column of the right choice (index, letter or text), text or label."
    )
    text: str = Field("", description="Column of the bare input, or of the whole text for rolling.")
    metrics: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    description: str = Field("", description="Stands before the examples.")
    delimiter: str = Field(" ", description="Between question and answer.")
    separator: str = Field("\n\n", description="Between examples.")
    selection: Selection = Field("fixed", description="How examples are chosen.")
    labels: tuple[str, ...] = Field((), description="Class names; by default those of the rows.")
    template: str = Field("{label}", description="How a label is put for embeddings.")
    hypothesis: str = Field("This example is {label}.", description="How a label is put for entailment.")
    unconditional: str | None = Field(None, description="End of the prompt alone, for acc_pmi.")
    stop: tuple[str, ...] = Field(("\n\n",), description="Strings that end a generation.")
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    extract: str | None = Field(
        None, description="Regular expression; its last match (first group, if any) is the answer."
    )


METRICS: dict[str, tuple[str, ...]] = {
    "choice": ("acc", "acc_norm"),
    "likelihood": ("acc", "word_perplexity"),
    "generation": ("exact_match",),
    "classification": ("acc", "f1_macro"),
    "embedding": ("acc",),
    "rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}


def is_file_name(name: str) -> bool:
    """Whether a task is named by its file."""
    return name.endswith((".yaml", ".yml"))


def read(name: str) -> Task:
    """The task in the YAML file `name`.

    Raises:
        UsageError: the file isn't there, isn't YAML, or says something that can't be meant.
    """
    path = Path(name).expanduser()
    said = missing_file(str(path))
    if said or not path.is_file():
        raise UsageError(f"{name}: {said or 'a folder; name the task file in it'}")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{name}: {error}") from error
    try:
        return made(Written.model_validate_json(json.dumps(raw)), path.parent)
    except ValidationError as error:
        raise RecipeError(name, problems_of(error, Written, raw)) from error


def made(said: Written, folder: Path) -> Task:
    """The task that `said` describes; its paths are relative to `folder`."""
    pattern = re.compile(said.extract) if said.extract else None
    column = said.text or (said.prompt if said.kind == "classification" else "")
    return Task(
        name=said.task,
        summary=said.summary or f"{said.kind}, declared in YAML",
        kind=said.kind,
        test=(_place(said.test, folder),),
        train=(_place(said.train, folder),) if said.train else (),
        document=partial(_document, said, column),
        metrics=said.metrics or METRICS[said.kind],
        description=said.description,
        delimiter=said.delimiter,
        separator=said.separator,
        selection=said.selection,
        labels=said.labels,
        prompt=partial(_fill, said.prompt)
        if said.kind == "classification" and "{text}" in said.prompt
        else None,
        template=said.template,
        hypothesis=said.hypothesis,
        unconditional=said.unconditional,
        stop=said.stop,
        max_new_tokens=said.max_new_tokens,
        extract=partial(_last_match, pattern) if pattern else str.strip,
    )


def _place(said: Place, folder: Path) -> Rows:
    path = None if said.path is None else str((folder / Path(said.path).expanduser()).resolve())
    return Rows(path=path, hub=said.hub, name=said.name, split=said.split)


def _fill(template: str, text: str) -> str:
    return template.replace("{text}", text)


def _document(said: Written, column: str, values: Mapping[str, Any]) -> Document:
    row = Row(values, BARE)
    text = str(value(row, column)) if column else ""
    query = "" if said.kind == "classification" and "{text}" in said.prompt else _read(row, said.prompt)
    choices = _choices(row, said.choices)
    return Document(query=query, choices=choices, answer=_answer(row, said, choices), text=text)


def _read(row: Row, spec: str) -> str:
    return str(value(row, spec)) if spec else ""


def _choices(row: Row, spec: str | tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(spec, str):
        return tuple(str(value(row, one)) for one in spec)
    if not spec:
        return ()
    found = value(row, spec)
    if not isinstance(found, (list, tuple)):
        raise DataError(f"choices: column {spec!r} is {found!r}; a list is needed, or a template a choice")
    return tuple(str(one) for one in found)


def _answer(row: Row, said: Written, choices: tuple[str, ...]) -> int | str | None:
    if not said.answer:
        return None
    found = value(row, said.answer)
    if said.kind != "choice":
        return str(found)
    text = str(found).strip()
    if text in choices:
        return choices.index(text)
    if text.lstrip("-").isdecimal():
        return int(text)
    if len(text) == 1 and text.upper() in LETTERS:
        return LETTERS.index(text.upper())
    raise DataError(f"answer: {found!r} is no index, letter or one of the choices {', '.join(choices)}")


def _last_match(pattern: re.Pattern[str], text: str) -> str:
    found = list(pattern.finditer(text))
    if not found:
        return text.strip()
    last = found[-1]
    return (last[1] if pattern.groups else last[0]).strip()
