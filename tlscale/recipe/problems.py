"""Turns pydantic's errors into problems a person can act on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tlscale.errors import Problem, nearest, unknown

_TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
}


def shown(value: Any) -> str:
    """A given value as one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 44 else text[:41] + "..."


def problems_of(
    error: ValidationError, model: type[BaseModel], raw: Any, prefix: Sequence[str] = ()
) -> list[Problem]:
    """One problem a path; the branches of a union are joined with "or"."""
    found: dict[str, tuple[str, list[str]]] = {}
    for item in error.errors(include_url=False):
        location = _location(item["loc"], raw, item["type"])
        path = ".".join([*prefix, *map(str, location)]) or "recipe"
        message = _message(item, model, location)
        _, messages = found.setdefault(path, (_given(item), []))
        if message not in messages:
            messages.append(message)
    return [Problem(path, given, _join(messages)) for path, (given, messages) in found.items()]


def _join(messages: list[str]) -> str:
    first, *rest = messages
    return " or ".join([first, *(m.removeprefix("must be ") for m in rest)])


def _location(loc: tuple[int | str, ...], raw: Any, kind: str) -> tuple[int | str, ...]:
    """`loc` without the names of union branches, which are no part of what the user wrote."""
    kept: list[int | str] = []
    for step in loc:
        there = isinstance(raw, list) and isinstance(step, int) and step < len(raw)
        if there or (isinstance(raw, dict) and step in raw):
            raw = raw[step]
        elif not (kind == "missing" and step == loc[-1]):
            continue
        kept.append(step)
    return tuple(kept)


def _given(item: Any) -> str:
    return "" if item["type"] in ("missing", "value_error") else shown(item["input"])


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> dict[str, Any]:
    current: Any = model
    named = False
    for step in location:
        if isinstance(step, int) or named:
            named = False
            continue
        field = current.model_fields.get(step)
        if field is None:
            return {}
        # the next step into a mapping of names to models is a name
        named = getattr(field.annotation, "__origin__", None) is dict
        current = next((part for part in _parts(field.annotation) if _is_model(part)), None)
        if current is None:
            return {}
    return dict(current.model_fields)


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _parts(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(leaf for part in arguments for leaf in _parts(part))]


def _message(item: Any, model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(str(location[-1]), _fields_at(model, location[:-1]), "key")
    if kind == "missing":
        field = _fields_at(model, location[:-1]).get(str(location[-1]))
        about = f": {field.description}" if field is not None and field.description else ""
        return f"missing{about}"
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "")
        near = nearest(str(item["input"]), allowed.replace(" or ", ", ").split(", "))
        return f"must be {allowed}" + (f"; did you mean {near}?" if near else "")
    if kind == "value_error":
        return str(context["error"])
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    text: str = item["msg"]
    return text.replace("Input should be ", "must be ").replace("Input should have ", "must have ")
