"""Faults of conversations: not lists of messages, wrong roles, wrong order, nothing said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tlscale.errors import nearest
from tlscale.sources.doctor.cells import characters
from tlscale.sources.doctor.finding import Finding, Kind, tally
from tlscale.sources.doctor.part import Part
from tlscale.sources.rows import describe

Hits = Iterator[tuple[Kind, str]]

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
# What other formats call them.
_ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "prompter": "user",
}
_BOTH = ("role", "content")


def check(part: Part) -> list[Finding]:
    """All findings on the messages of `part`."""
    rows = [(one["messages"], row.where) for one, row in zip(part.values, part.rows, strict=True) if one]
    hits = [hit for found, where in rows for hit in _conversation(found, where)]
    found = tally(part.role, hits, len(part.rows))
    silent = sum(kind.check == "no-assistant" for kind, _ in hits)
    if part.trains and silent == len(part.rows):
        found = [replace(one, severity="error") if one.check == "no-assistant" else one for one in found]
    return found


def _conversation(found: Any, where: str) -> Hits:
    fix = "each row needs a list of objects with role and content"
    if isinstance(found, str):
        yield (
            Kind("error", "messages", "messages is text, not a list", f"is it JSON inside a string? {fix}"),
            where,
        )
        return
    if not isinstance(found, list) or not found:
        told = "an empty list" if found == [] else describe(found)
        yield Kind("error", "messages", f"messages is {told}", fix), where
        return
    faults = list(_shapes(found))
    if faults:
        yield faults[0], where
        return
    for kind in dict.fromkeys((*_contents(found), *_order([message["role"] for message in found]))):
        yield kind, where
    for message in found:
        yield from characters("messages", message["content"], where)


def _shapes(found: list[Any]) -> Iterator[Kind]:
    for i, message in enumerate(found):
        if not isinstance(message, Mapping):
            yield Kind(
                "error", "messages", f"messages[{i}] is {describe(message)}", "role and content are needed"
            )
        elif not set(_BOTH) <= set(message):
            hint = "rename from to role and value to content; " if {"from", "value"} <= set(message) else ""
            told = ", ".join(map(str, message)) or "nothing"
            yield Kind("error", "messages", f"a message has {told}", f"{hint}role and content are needed")
        elif not isinstance(message["role"], str) or not isinstance(message["content"], str):
            key = "role" if not isinstance(message["role"], str) else "content"
            told = describe(message[key])
            yield Kind("error", "messages", f"a message's {key} is {told}", "it must be text")


def _contents(found: list[Any]) -> Iterator[Kind]:
    for message in found:
        role, content = message["role"], message["content"]
        if role not in ROLES:
            near = _ALIASES.get(role.lower()) or nearest(role.strip().lower(), ROLES)
            hint = f"did you mean {near!r}? " if near else ""
            fix = f"{hint}usual roles: {', '.join(ROLES[:5])}"
            yield Kind("error" if near else "warning", "role", f"unknown role {role!r}", fix)
        if not content.strip():
            fix = "fill it in or drop the row"
            severe = role == "assistant"
            yield Kind("error" if severe else "warning", "empty", f"the {role}'s content is empty", fix)


def _order(roles: list[str]) -> Iterator[Kind]:
    if "assistant" not in roles:
        fix = "nothing of such a row is learned; drop it or add the answer"
        yield Kind("warning", "no-assistant", "no turn of the assistant", fix)
        return
    spoken = [role for role in roles if role not in ("system", "developer")]
    if spoken and spoken[0] == "assistant":
        fix = "many chat templates refuse that; add the user's turn"
        yield Kind("warning", "order", "the assistant speaks first", fix)
    for role in ("user", "assistant"):
        if any(a == b == role for a, b in pairwise(roles)):
            fix = "many chat templates refuse that; join the turns"
            yield Kind("warning", "order", f"two turns of the {role} in a row", fix)
    if any(role == "system" for role in roles[1:]):
        yield Kind("warning", "order", "the system's turn is not the first", "move it to the beginning")
    if roles[-1] == "user":
        yield Kind(
            "warning", "order", "the last turn is the user's", "it is not learned; is the answer missing?"
        )
