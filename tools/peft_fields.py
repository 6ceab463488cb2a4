"""Writes the table of PEFT methods and their fields that recipes are checked against.

    python tools/peft_fields.py            rewrites tlscale/strategies/peft_fields.json
    python tools/peft_fields.py --check    exits 1 when the file differs from the installed PEFT

Recipes are checked without importing torch, so the fields are read from PEFT once, here.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import typing
from pathlib import Path
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

TABLE = Path(__file__).parents[1] / "tlscale" / "strategies" / "peft_fields.json"
SET_BY_THE_PLAN = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
}
KINDS = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    set: "array",
    str: "string",
    tuple: "array",
    type(None): "null",
}


def kinds(annotation: Any) -> set[str]:
    """The JSON kinds that a field of this annotation takes; empty when JSON can't express it."""
    origin = typing.get_origin(annotation)
    if annotation in KINDS:
        return {KINDS[annotation]}
    if origin in KINDS:
        return {KINDS[origin]}
    if origin is typing.Literal:
        return {KINDS[type(value)] for value in typing.get_args(annotation)}
    if isinstance(annotation, type) and issubclass(annotation, str):
        return {"string"}
    found: set[str] = set()
    for part in typing.get_args(annotation):
        found |= kinds(part)
    return found


def choices(annotation: Any) -> list[Any] | None:
    """The literal values of an annotation that is nothing but literals."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return None


def table() -> dict[str, dict[str, Any]]:
    """Method name (lower case) to its fields: kinds, choices, and the first sentence of PEFT's help."""
    methods: dict[str, dict[str, Any]] = {}
    for peft_type, config in sorted(PEFT_TYPE_TO_CONFIG_MAPPING.items()):
        hints = typing.get_type_hints(config)
        fields: dict[str, Any] = {}
        for field in sorted(dataclasses.fields(config), key=lambda f: f.name):
            allowed = sorted(kinds(hints[field.name]))
            if field.name in SET_BY_THE_PLAN or not field.init or allowed in ([], ["null"]):
                continue
            text = re.sub(r"\s+", " ", str(field.metadata.get("help", ""))).strip()
            fields[field.name] = {"kinds": allowed, "help": re.split(r"(?<=\.) ", text)[0]}
            if (literal := choices(hints[field.name])) is not None:
                fields[field.name]["choices"] = literal
        methods[str(peft_type.value).lower()] = fields
    return methods


def main() -> int:
    text = json.dumps(table(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv:
        return 0 if TABLE.read_text(encoding="utf-8") == text else 1
    TABLE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
