"""What rows are for: the columns a source names, or the conventional ones, decide the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlscale.errors import DataError
from tlscale.recipe.types import Source, Task
from tlscale.sources.rows import missing, slots

Format = Literal[
    "text", "prompt-completion", "messages", "classification", "pairs", "image-classification", "image",
    "audio-classification",
]  # fmt: skip

# In the order in which unnamed columns are recognised.
ROLES: dict[Format, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "image-classification": ("image", "label"),
    "audio-classification": ("audio", "label"),
    "pairs": ("anchor", "positive"),
    "classification": ("text", "label"),
    "text": ("text",),
    "image": ("image",),
}
TASK_FORMATS: dict[Task, tuple[Format, ...]] = {
    "causal-lm": ("text", "prompt-completion", "messages"),
    "masked-lm": ("text", "prompt-completion"),
    "sequence-classification": ("classification",),
    "image-classification": ("image-classification",),
    "audio-classification": ("audio-classification",),
    "sentence-embedding": ("pairs",),
}
_ALL_ROLES = ("messages", "prompt", "completion", "image", "audio", "anchor", "positive", "text", "label")


@dataclass(frozen=True)
class Columns:
    """The format of a source's rows, and for each role the column or template that fills it."""

    format: Format
    by_role: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read, templates taken apart."""
        found: dict[str, None] = {}
        for spec in self.by_role.values():
            found.update(dict.fromkeys(slots(spec) or (spec,)))
        return tuple(found)


def infer_format(source: Source, columns: Sequence[str]) -> Format:
    """The format of `source`, whose file has these `columns`.

    Raises:
        DataError: see `map_columns`.
    """
    return map_columns(source, columns).format


def map_columns(source: Source, columns: Sequence[str]) -> Columns:
    """Which column fills which role.

    Raises:
        DataError: a named column isn't there (the nearest is suggested), the named ones make no format,
            or none is named and none has a conventional name.
    """
    where = place(source)
    named = {role: spec for role in _ALL_ROLES if (spec := getattr(source, role)) is not None}
    for role, spec in named.items():
        names = (spec,) if spec in columns else slots(spec) or (spec,)
        for name in names:
            if name not in columns:
                raise DataError(f"{where}: {role}: {missing(name, columns)}")
    if source.split_at is not None:
        return Columns("prompt-completion", {"text": _text_to_split(where, named, columns)})
    for form, roles in ROLES.items():
        if set(roles) == set(named) or (not named and set(roles) <= set(columns)):
            return Columns(form, {role: named.get(role, role) for role in roles})
    if named:
        raise DataError(f"{where}: {', '.join(named)} together make no format; {_allowed()}")
    raise DataError(
        f"{where}: none of the columns ({', '.join(columns)}) has a conventional name; say in the recipe "
        f"which column is which: {_allowed()}"
    )


def _text_to_split(where: str, named: dict[str, str], columns: Sequence[str]) -> str:
    if set(named) - {"text"}:
        others = ", ".join(sorted(set(named) - {"text"}))
        raise DataError(f"{where}: split_at cuts the column text and doesn't go with {others}")
    if not named and "text" not in columns:
        raise DataError(f"{where}: split_at needs text; {missing('text', columns)}")
    return named.get("text", "text")


def _allowed() -> str:
    return "allowed: " + "; ".join(" + ".join(roles) for roles in ROLES.values())


def place(source: Source) -> str:
    """How messages name a source: its path, its id on the Hub, or the names of its tasks."""
    if source.tasks is not None:
        return f"tasks {', '.join(source.tasks)}"
    return source.path if source.path is not None else f"hub:{source.hub}"
