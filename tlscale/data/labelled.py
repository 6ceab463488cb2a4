"""Examples for classifiers and sentence encoders: texts with labels, and pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlscale.data.tokens import Overflow, too_long
from tlscale.data.types import Example, Made
from tlscale.errors import DataError, unknown
from tlscale.sources import Columns, Row, label, text


def class_index(row: Row, columns: Columns, labels: tuple[str, ...]) -> tuple[int, str]:
    """The row's label as an index into `labels`, and its name.

    Raises:
        DataError: it isn't one of `labels`; the nearest one is suggested.
    """
    name = label(row, columns.by_role["label"])
    if name not in labels:
        raise DataError(f"{row.where}: label {name!r}: {unknown(name, labels, 'label')}")
    return labels.index(name), name


def classified(
    rows: Sequence[Row],
    columns: Columns,
    tokenizer: Any,
    *,
    labels: tuple[str, ...],
    max_length: int,
    overflow: Overflow,
) -> list[Made]:
    """Texts with class indices, tokenised as the encoder expects it (its special tokens included).

    Raises:
        DataError: an unknown label or an empty text.
    """
    texts = [_not_empty(row, columns.by_role["text"]) for row in rows]
    answers = [class_index(row, columns, labels) for row in rows]
    found = _fitted(rows, texts, tokenizer, max_length, overflow)
    made = []
    for row, content, (index, name), (ids, cut) in zip(rows, texts, answers, found, strict=True):
        if ids is None:
            made.append(Made(()))
            continue
        one = Example(where=row.where, text=content, reference=name, tokens=ids, label=index)
        made.append(Made((one,), cut))
    return made


def paired(
    rows: Sequence[Row], columns: Columns, tokenizer: Any, *, max_length: int, overflow: Overflow
) -> list[Made]:
    """Pairs of similar texts, each side tokenised by itself with its special tokens.

    Raises:
        DataError: an empty text.
    """
    anchors = [_not_empty(row, columns.by_role["anchor"]) for row in rows]
    positives = [_not_empty(row, columns.by_role["positive"]) for row in rows]
    first = _fitted(rows, anchors, tokenizer, max_length, overflow)
    second = _fitted(rows, positives, tokenizer, max_length, overflow)
    made = []
    for row, anchor, positive, (ids, cut), (pair, pair_cut) in zip(
        rows, anchors, positives, first, second, strict=True
    ):
        if ids is None or pair is None:
            made.append(Made(()))
            continue
        one = Example(where=row.where, text=anchor, reference=positive, tokens=ids, pair=pair)
        made.append(Made((one,), cut + pair_cut))
    return made


def _not_empty(row: Row, spec: str) -> str:
    content = text(row, spec)
    if not content.strip():
        raise DataError(f"{row.where}: column {spec!r} is empty; text is needed")
    return content


def _fitted(
    rows: Sequence[Row], texts: list[str], tokenizer: Any, max_length: int, overflow: Overflow
) -> list[tuple[list[int] | None, int]]:
    """Token ids of each text within `max_length` and how many were cut; `None` for a dropped row."""
    if not texts:
        return []
    found: list[tuple[list[int] | None, int]] = []
    full = tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
    for row, content, ids in zip(rows, texts, full, strict=True):
        if not ids:
            raise DataError(f"{row.where}: the tokenizer makes nothing of {content[:40]!r}")
        if len(ids) <= max_length:
            found.append((list(ids), 0))
            continue
        too_long(row.where, len(ids), max_length, overflow)
        if overflow == "drop":
            found.append((None, 0))
            continue
        # Cut by the tokenizer itself, so that its closing special token stays.
        short = tokenizer(content, truncation=True, max_length=max_length)["input_ids"]
        found.append((list(short), len(ids) - len(short)))
    return found
