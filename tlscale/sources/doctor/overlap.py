"""Rows that are there twice: within a role, with contradictory labels, or in training and test alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tlscale.errors import DataError
from tlscale.sources.doctor import images
from tlscale.sources.doctor.finding import Finding, Kind, finding, places
from tlscale.sources.doctor.part import Part
from tlscale.sources.rows import label

Key = str | bytes

# Shorter lines of running text recur by themselves.
_SHORT_LINE = 30
# A small set made from templates repeats itself; a whole test set of distinct known rows is a mistake.
_ALL, _MANY = 0.9, 50
_FEW_DUPLICATES = 0.01
_INPUTS = ("text", "prompt", "anchor", "image", "audio")


def within(parts: Sequence[Part]) -> list[Finding]:
    """Duplicates and contradictions in each of `parts`."""
    found: list[Finding] = []
    for part in parts:
        found += [*_duplicates(part), *_contradictions(part)]
    return found


def across(parts: Sequence[Part]) -> list[Finding]:
    """What the rows that are trained on share with those of the other roles."""
    found: list[Finding] = []
    for part in parts:
        for other in parts:
            if part.trains and not other.trains:
                found += _shared(part, other)
    return found


def _keys(part: Part) -> list[Key | None]:
    return [_key(part, i) for i in range(len(part.rows))]


def _plain(content: str) -> str:
    """Texts that differ only in case and white space are the same."""
    return " ".join(content.casefold().split())


def _key(part: Part, i: int) -> Key | None:
    """What two equal rows have in common, labels aside; `None` where rows can't be compared."""
    one = part.values[i]
    if part.columns.format == "text":
        content = _plain(one["text"]) if isinstance(one.get("text"), str) else ""
        return content if len(content) >= _SHORT_LINE else None
    if "image" in one:
        return images.content(one["image"])
    if "messages" in one:
        return _plain(json.dumps(one["messages"], default=str))
    texts = [content for name, content in one.items() if name != "label" and isinstance(content, str)]
    return _plain("\0".join(texts)) if any(content.strip() for content in texts) else None


def _input(one: Any) -> Key | None:
    for name in _INPUTS:
        found = one.get(name)
        if name == "image" and found is not None:
            return images.content(found)
        if isinstance(found, str) and found.strip():
            return _plain(found)
    return None


def _label(part: Part, i: int) -> str | None:
    spec = part.columns.by_role.get("label")
    if spec is None or "label" not in part.values[i]:
        return None
    try:
        return label(part.rows[i], spec)
    except DataError:
        return None


def _duplicates(part: Part) -> Iterator[Finding]:
    keys = _keys(part)
    seen: dict[tuple[Key, str | None], int] = {}
    again = []
    for i, key in enumerate(keys):
        if key is not None and seen.setdefault((key, _label(part, i)), i) != i:
            again.append(part.rows[i].where)
    if again:
        severe = len(again) > _FEW_DUPLICATES * len(keys)
        fix = "they count several times" if part.trains else "they count several times in every score"
        kind = Kind(
            "warning" if severe else "note",
            "duplicate",
            "the same as an earlier row, case and white space aside",
            fix,
        )
        yield finding(kind, part.role, again, len(keys))


def _contradictions(part: Part) -> Iterator[Finding]:
    if "label" not in part.columns.by_role:
        return
    first: dict[Key, tuple[str, str]] = {}
    against: list[str] = []
    examples: list[str] = []
    for i, row in enumerate(part.rows):
        key, name = _input(part.values[i]), _label(part, i)
        if key is None or name is None:
            continue
        before, where = first.setdefault(key, (name, row.where))
        if before != name:
            against.append(row.where)
            examples.append(f"{where} says {before!r}, {row.where} {name!r}")
    if against:
        problem = "a label that contradicts an earlier row with the same content"
        kind = Kind("warning", "contradiction", problem, f"{examples[0]}; decide on one")
        yield finding(kind, part.role, against, len(part.rows))


def _shared(part: Part, other: Part) -> Iterator[Finding]:
    keys, others = _keys(part), _keys(other)
    trained = {key: row.where for key, row in zip(keys, part.rows, strict=True) if key is not None}
    both = [(row.where, key) for row, key in zip(other.rows, others, strict=True) if key in trained]
    if both:
        example = f"{both[0][0]} is {trained[both[0][1] or '']}"
        distinct = len({key for _, key in both})
        yield _leak(part, other, [where for where, _ in both], example, distinct)
        return
    if part.columns.format not in ("prompt-completion", "messages"):
        return
    asked = {_input(one): row.where for one, row in zip(part.values, part.rows, strict=True)}
    prompts = [_input(one) for one in other.values]
    same = [row.where for row, key in zip(other.rows, prompts, strict=True) if key and key in asked]
    # A prompt that all rows share is an instruction, not a question.
    if same and len(set(prompts)) > len(prompts) / 2:
        problem = f"the prompt is also in {part.role}, with another completion"
        kind = Kind("warning", "prompt-overlap", problem, "scores of such rows tell little; drop them")
        yield finding(kind, other.role, same, len(other.rows))


def _leak(part: Part, other: Part, found: list[str], example: str, distinct: int) -> Finding:
    total = len(other.rows)
    same_file = part.source.path == other.source.path and {r.where for r in part.rows} & set(found)
    whole = len(found) >= _ALL * total and distinct >= _MANY
    text = (
        f"{len(found):,} of {total:,} {other.role} rows ({len(found) / total:.1%}) are also in "
        f"{part.role}, case and white space aside ({places(found)}; {example}); "
    )
    if same_file or whole:
        fix = "a score on learned rows says nothing: take others, or leave data.test out to hold some out"
        return Finding("error", other.role, found[0], "overlap", text + fix)
    return Finding("warning", other.role, found[0], "overlap", text + "remove them from one of the two")
