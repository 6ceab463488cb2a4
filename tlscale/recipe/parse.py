"""YAML as recipes use it: safe, small, without YAML's silent surprises.

`3e-4` is a number, `yes` and `2024-01-01` are strings, a key written twice is an error, and anchors
that unfold into more than a recipe could need are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from tlscale.errors import Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 50_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _DuplicateKeyError(yaml.YAMLError):
    def __init__(self, key: Hashable, line: int) -> None:
        super().__init__(f"the key {key!r} is written twice, again on line {line}; keep one")


class _Loader(_Base):  # type: ignore[misc]
    """YAML 1.2's core scalars, and unique keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(
                    f"the key {key!r} on line {key_node.start_mark.line + 1} is no text; quote it"
                )
            if key in seen:
                raise _DuplicateKeyError(key, key_node.start_mark.line + 1)
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_pattern})$"),
        list(_first) + ([""] if _tag == "null" else []),
    )


def _measure(value: Any, depth: int = 0) -> int:
    if depth > MAX_DEPTH:
        raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return 1 + sum(_measure(child, depth + 1) for child in value.values())
    if isinstance(value, list):
        return 1 + sum(_measure(child, depth + 1) for child in value)
    return 1


def parse_yaml(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        yaml.YAMLError: not YAML, a duplicate key, or larger or deeper than any recipe.
    """
    if len(text) > MAX_BYTES:
        raise yaml.YAMLError(f"larger than {MAX_BYTES:,} characters")
    nodes = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=_Loader), start=1):
        if nodes > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} entries")
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(
                f"anchors and aliases (*{event.anchor}) are not used in recipes; write the value out"
            )
    value = yaml.load(text, Loader=_Loader)
    _measure(value)
    return value


def apply_overrides(raw: dict[str, Any], overrides: list[str]) -> tuple[dict[str, Any], list[Problem]]:
    """`key.sub=value` arguments laid over a parsed recipe; values are YAML, list items are numbered.

    Returns a new recipe and what was wrong with the arguments themselves; whether a key exists is left
    to the recipe's own check.
    """
    result: Any = _copy(raw)
    problems = []
    given: set[str] = set()
    for argument in overrides:
        path, equals, text = argument.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            problems.append(Problem(argument, "", "not an override; write key.sub=value"))
            continue
        if path in given:
            problems.append(Problem(path, text, "given twice (command line)"))
        given.add(path)
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            problems.append(Problem(path, text, f"not a YAML value: {str(error).splitlines()[0]}"))
            continue
        fault = _set(result, keys, value)
        if fault:
            problems.append(Problem(path, text, f"{fault} (command line)"))
    return result, problems


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_copy(child) for child in value]
    return value


def _set(target: Any, keys: list[str], value: Any) -> str | None:
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                return f"{'.'.join(keys[:depth])} is a list of {len(target)}; number its items from 0"
            index: Any = int(key)
        elif isinstance(target, dict):
            index = key
            if not last and target.get(key) is None:
                target[key] = {}
        else:
            return f"{'.'.join(keys[:depth])} is a value, it has no keys"
        if last:
            target[index] = value
        else:
            target = target[index]
    return None
