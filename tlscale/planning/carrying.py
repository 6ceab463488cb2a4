"""What a stage makes of the one before: its adapter goes on, is merged into the base, or is left behind.

Decided once, in the plan. What can't be meant is refused here, before a stage has been trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tlscale.errors import PlanError
from tlscale.planning.cases import VIRTUAL_TOKENS
from tlscale.planning.fusion import FUSION
from tlscale.planning.types import Head, Stage
from tlscale.recipe.carry import AskedCarry, Carry

# methods without a change of weights that could be added to the base's
UNMERGEABLE = (*VIRTUAL_TOKENS, FUSION, "POLY", "XLORA", "SHADOW")
SAID: dict[Carry, str] = {
    "none": "from {0}",
    "keep": "goes on with the adapter of {0}",
    "merge": "from {0}, whose adapter is merged into the base",
    "fresh": "from the base of {0}, whose adapter is left behind",
}


def carried(stages: Sequence[Stage], asked: Mapping[str, AskedCarry]) -> tuple[Stage, ...]:
    """The stages with `carry` decided; `asked` has what the recipe says, by the stage's name.

    Raises:
        PlanError: an adapter can't go on, be merged or be left behind; all such stages are named.
    """
    known: dict[str, Stage] = {}
    problems = []
    for stage in stages:
        wanted = asked.get(stage.name, "auto")
        carry, problem = _decided(stage, known.get(stage.starts_from), wanted)
        if problem:
            problems.append(f"stages: {stage.name}: carry: {wanted}: {problem}")
        known[stage.name] = stage.model_copy(update={"carry": carry})
    if problems:
        raise PlanError("\n".join(problems))
    return tuple(known.values())


def _decided(stage: Stage, before: Stage | None, asked: AskedCarry) -> tuple[Carry, str]:
    """What becomes of the adapter of the stage before, and what is wrong with what was asked for."""
    if before is None or before.adapter is None:
        return "none", "" if asked == "auto" else _nothing_carried(before, asked)
    elsewhere = f"give starts_from: {before.starts_from}"
    if asked == "fresh":
        why = f"this stage trains no adapter that could begin afresh; {elsewhere}"
        return "fresh", "" if stage.adapter is not None else why
    apart = _apart(before, stage)
    if asked == "keep":
        why = f"the adapter of {before.name} can't go on: {apart}; use merge or fresh"
        return "keep", why if apart else ""
    if asked == "auto" and not apart:
        return "keep", ""
    method = before.adapter.peft_type
    if method not in UNMERGEABLE:
        return "merge", ""
    also = f", and it can't go on: {apart}" if apart else ""
    ways = [*([] if apart else ["use keep"]), *([] if stage.adapter is None else ["use fresh"]), elsewhere]
    return "merge", (
        f"{method} of stage {before.name} adds no weights to the base's and can't be merged{also}; "
        f"{', or '.join(ways)}"
    )


def _nothing_carried(before: Stage | None, asked: AskedCarry) -> str:
    if before is None:
        return (
            "the stage starts from the base, and there is no earlier adapter; leave carry out, or name an "
            "earlier stage in starts_from"
        )
    behind = f", or give starts_from: {before.starts_from} to leave it behind" if asked == "fresh" else ""
    return (
        f"stage {before.name} trains no adapter, and its whole result is what this stage begins from; "
        f"leave carry out{behind}"
    )


def _apart(before: Stage, stage: Stage) -> str:
    """Why `stage` can't train on the adapter of `before`; empty where it can."""
    one, other = before.adapter, stage.adapter
    assert one is not None
    if other is None:
        return "this stage trains no adapter"
    if stage.tasks is not None and stage.tasks.adapter_names:
        return "this stage's tasks have adapters of their own"
    if one.peft_type != other.peft_type:
        return f"it is {one.peft_type}, and this stage trains {other.peft_type}"
    differing = [
        f"{name} {one.fields.get(name)!r} there and {other.fields.get(name)!r} here"
        for name in sorted({*one.fields, *other.fields})
        if one.fields.get(name) != other.fields.get(name)
    ]
    if differing:
        return ", ".join(differing)
    if _shape(before.head) != _shape(stage.head):
        return "its head is another one"
    return ""


def _shape(head: Head) -> tuple[object, ...]:
    return head.kind, head.hidden, head.normalize


def foundation(stages: Sequence[Stage], last: Stage) -> str:
    """What the adapter of `last` stands on: base, or the stage whose weights are in what it loads."""
    known = {stage.name: stage for stage in stages}
    while last.starts_from != "base":
        if last.carry in ("none", "merge"):
            return last.starts_from
        last = known[last.starts_from]
    return "base"


def notes(stages: Sequence[Stage]) -> list[str]:
    """What a stage doesn't get of the one before, where that isn't plain from the recipe."""
    known = {stage.name: stage for stage in stages}
    found = []
    for stage in stages:
        before = known.get(stage.starts_from)
        if before is None or before.adapter is None:
            continue
        if stage.carry == "fresh":
            found.append(
                f"stage {stage.name} begins as {before.name} began: what {before.name} learned, its head "
                f"included, stays in stages/{before.name} and is in no later result"
            )
        elif before.head.kind == "pooled" and _shape(before.head) != _shape(stage.head):
            found.append(
                f"stage {stage.name} has another head than {before.name}, whose head is left behind"
            )
    return found
