"""One row of data, and what a column name or a template reads from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlscale.errors import DataError, nearest
from tlscale.recipe.types import Source

_SLOT = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
PLACE = "{mask}"
"""Where a masked language model is to fill a word in; no column can be meant by it in a template."""
_INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One record: `values` by column, `where` it was found ("train.csv:17", "x.npz[5]", "cat/3.png").

    `ends` is false when the row is the beginning or middle of a document that goes on elsewhere, so
    that nothing teaches a model to stop there.
    """

    values: Mapping[str, Any]
    where: str
    ends: bool = True


def slots(spec: str) -> tuple[str, ...]:
    """The column names inside the braces of a template; empty for a plain column name."""
    found = (m[1] for m in _SLOT.finditer(spec) if m[1] is not None and m[0] != PLACE)
    return tuple(dict.fromkeys(found))


def missing(column: str, there: Sequence[str]) -> str:
    """The sentence for a column that isn't among those `there`."""
    near = nearest(column, there)
    hint = f"did you mean {near!r}? " if near is not None else ""
    return f"no column {column!r}; {hint}columns there: {', '.join(there) or 'none'}"


def value(row: Row, spec: str) -> Any:
    """What `spec` reads from `row`: the value of that column, or a template with its slots filled.

    A template such as `"{question}\\n{hint}"` has column names in braces; `{{` and `}}` stand for braces,
    and `{mask}` stays.

    Raises:
        DataError: a column isn't in this row, or a template meets a value that is no text or number.
    """
    if spec in row.values:
        return row.values[spec]
    names = slots(spec)
    if not names:
        raise DataError(f"{row.where}: {missing(spec, tuple(row.values))}")
    filled = {name: _slot_text(row, name) for name in names}
    braces = {"{{": "{", "}}": "}", PLACE: PLACE}
    return _SLOT.sub(lambda m: braces[m[0]] if m[0] in braces else filled[m[1]], spec)


def _slot_text(row: Row, name: str) -> str:
    if name not in row.values:
        raise DataError(f"{row.where}: {missing(name, tuple(row.values))}")
    found = row.values[name]
    if isinstance(found, str):
        return found
    if isinstance(found, (int, float)):
        return str(found)
    raise DataError(f"{row.where}: column {name!r} is {describe(found)}; a template needs text")


def text(row: Row, spec: str) -> str:
    """The text that `spec` reads from `row`.

    Raises:
        DataError: it is null or no text.
    """
    found = value(row, spec)
    if not isinstance(found, str):
        raise DataError(f"{row.where}: column {spec!r} is {describe(found)}; text is needed")
    return found


def label(row: Row, spec: str) -> str:
    """The class name that `spec` reads from `row`; numbers and one-element arrays become text.

    Raises:
        DataError: it is null, empty or not one value.
    """
    found = value(row, spec)
    if hasattr(found, "item") and getattr(found, "size", 0) == 1:
        found = found.item()
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    whole = isinstance(found, (str, int)) or (isinstance(found, float) and not math.isnan(found))
    if not whole or found == "":
        raise DataError(f"{row.where}: label {spec!r} is {describe(found)}; a name or number is needed")
    return str(found)


def label_names(rows: Sequence[Row], source: Source) -> tuple[str, ...]:
    """The distinct labels of `rows` as strings, sorted; in numeric order when all are integers.

    Raises:
        DataError: a row has no usable label.
    """
    spec = source.label or "label"
    return sort_labels({label(row, spec) for row in rows})


def sort_labels(names: set[str]) -> tuple[str, ...]:
    """Label names in the order that numbers the model's outputs."""
    if all(_INTEGER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def describe(found: Any) -> str:
    """A few words for a value that isn't what is needed."""
    if found is None:
        return "null"
    if isinstance(found, str) and not found:
        return "empty"
    if isinstance(found, (bool, int, float)):
        return json.dumps(found)
    shape = getattr(found, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)}"
    return f"a {type(found).__name__}"
