"""Ordered rules over parameter names: the first full match decides, and every parameter is decided on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tlscale.errors import PlanError, nearest
from tlscale.planning.types import Decision, ParamRule, Tensor

LISTED = 10
# rules over these may be written ahead of what a method adds, so matching nothing is no mistake
ADDED = ("head", "adapter")


def decide(tensors: Sequence[Tensor], rules: Sequence[ParamRule]) -> tuple[Decision, ...]:
    """What `rules` make of each of `tensors`, in their order.

    Raises:
        PlanError: a pattern is no regular expression or matches no parameter, or a parameter is left over.
    """
    patterns = [_compiled(index, rule.pattern) for index, rule in enumerate(rules)]
    decisions = []
    left_over = []
    used: set[int] = set()
    for tensor in tensors:
        first = next((i for i, pattern in enumerate(patterns) if pattern.fullmatch(tensor.name)), None)
        if first is None:
            left_over.append(tensor.name)
            continue
        used.add(first)
        decisions.append(
            Decision(name=tensor.name, size=tensor.size, rule=first, lr_scale=rules[first].lr_scale)
        )
    for index, pattern in enumerate(patterns):
        if index not in used:
            _check_matches(index, pattern, [tensor.name for tensor in tensors])
    if left_over:
        raise PlanError(_left_over(left_over))
    return tuple(decisions)


def trainable_names(tensors: Iterable[Tensor], rules: Sequence[ParamRule]) -> frozenset[str]:
    """Names of the tensors that the rules train; those that no rule covers count as frozen."""
    patterns = [(_compiled(index, rule.pattern), rule.lr_scale) for index, rule in enumerate(rules)]
    names = set()
    for tensor in tensors:
        scale = next((s for pattern, s in patterns if pattern.fullmatch(tensor.name)), None)
        if scale is not None:
            names.add(tensor.name)
    return frozenset(names)


def _compiled(index: int, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PlanError(f"rule {index + 1}: {pattern!r} is not a regular expression: {error}") from error


def _check_matches(index: int, pattern: re.Pattern[str], names: list[str]) -> None:
    if pattern.pattern.startswith(ADDED) or any(pattern.fullmatch(name) for name in names):
        return
    near = nearest(pattern.pattern.replace("\\", "").replace(".*", ""), names)
    partly = [name for name in names if pattern.search(name)][:3]
    if partly:
        hint = f"it must match the whole name, as in {partly[0]}; add .* where more may follow"
    elif near:
        hint = f"the nearest is {near}"
    else:
        hint = f"names look like {', '.join(names[:3])}"
    raise PlanError(f"rule {index + 1}: {pattern.pattern!r} matches no parameter; {hint}")


def _left_over(names: list[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    word = "parameter is" if len(names) == 1 else "parameters are"
    return (
        f"{len(names)} {word} covered by no rule: {', '.join(names[:LISTED])}{more}; "
        "add a last rule for the rest, for example {pattern: '.*', lr_scale: null} to freeze them"
    )
