"""From rows to examples: one pure function that picks the format's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlscale.data import chat, clips, labelled, language, masking, pixels
from tlscale.data.tokens import LossOn, Overflow
from tlscale.data.types import Example, Prepared, PrepareReport, account
from tlscale.errors import DataError
from tlscale.recipe.types import WITHOUT_TEXT, Source, Task
from tlscale.sources import Columns, Row, map_columns, place
from tlscale.sources.formats import TASK_FORMATS as FORMATS
from tlscale.sources.rows import PLACE

__all__ = ["FORMATS", "Example", "PrepareReport", "Prepared", "prepare"]


def prepare(
    rows: Sequence[Row],
    source: Source,
    *,
    task: Task,
    processor: Any,
    labels: tuple[str, ...],
    max_length: int,
    overflow: Overflow,
    loss_on: LossOn,
    keep_pictures: bool = False,
) -> Prepared:
    """The examples of `rows`, and the account of what was cut or dropped.

    `processor` is a transformers tokenizer or what makes pixels or spectrograms. `max_length` is in
    tokens, special ones included. `overflow` doesn't concern documents: those continue in the next
    window. `keep_pictures` is for rows whose pixels are made anew in every epoch.

    Raises:
        DataError: no rows, a format that `task` can't use, or a row that isn't as its format needs;
            the message names the row.
    """
    columns = _checked(rows, source, task, max_length)
    form = columns.format
    if form == "text":
        documents = masking.documents if task == "masked-lm" else language.documents
        made = documents(rows, columns, processor, max_length)
    elif task == "masked-lm":
        made = masking.patterns(rows, source, columns, processor, max_length=max_length, overflow=overflow)
    elif form == "prompt-completion":
        made = language.completions(
            rows, source, columns, processor, max_length=max_length, overflow=overflow, loss_on=loss_on
        )
    elif form == "messages":
        made = chat.conversations(
            rows, columns, processor, max_length=max_length, overflow=overflow, loss_on=loss_on
        )
    elif form == "image-classification":
        made = pixels.images(rows, source, columns, processor, labels, keep=keep_pictures)
    elif form == "audio-classification":
        made = clips.clips(rows, source, columns, processor, labels=labels, overflow=overflow)
    elif form == "pairs":
        made = labelled.paired(rows, columns, processor, max_length=max_length, overflow=overflow)
    else:
        made = labelled.classified(
            rows, columns, processor, labels=labels, max_length=max_length, overflow=overflow
        )
    return account(made)


def _checked(rows: Sequence[Row], source: Source, task: Task, max_length: int) -> Columns:
    """Which column is what, if `task` can use that format at all."""
    if not rows:
        raise DataError(f"{place(source)}: no rows")
    if max_length < 2 and task not in WITHOUT_TEXT:
        raise DataError(f"data.max_length: {max_length}; at least 2 tokens are needed, one to learn from")
    columns = map_columns(source, tuple(rows[0].values))
    marked = [spec for spec in columns.by_role.values() if PLACE in spec]
    if (marked or source.words) and task != "masked-lm":
        raise DataError(
            f"{place(source)}: {marked[0] if marked else 'words'!r}: only a masked language model fills "
            f"words in; set model.task to masked-lm, or leave it out"
        )
    if columns.format not in FORMATS[task]:
        raise DataError(
            f"{place(source)}: the format is {columns.format}, which task {task} can't use; allowed: "
            f"{', '.join(FORMATS[task])}; name the columns in the recipe (text, label, prompt, ...)"
        )
    return columns
