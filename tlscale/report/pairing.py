"""Brings the outcomes of two arms together, item by item, or says why they can't be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlscale.evaluation.types import Outcome

Outcomes = Mapping[tuple[str, int], Outcome]
LIKELIHOODS = ("nll", "perplexity", "token_accuracy")


@dataclass(frozen=True)
class Pairing:
    """Outcomes [seeds][items] of both arms on the items that all have; `problem` forbids a comparison."""

    candidate: tuple[tuple[Outcome, ...], ...]
    control: tuple[tuple[Outcome, ...], ...]
    paired: int
    unpaired: int
    problem: str | None


def pair(candidate: Sequence[Outcomes], control: Sequence[Outcomes], metric: str) -> Pairing:
    """Pairs by where an item came from and its number; one mapping of outcomes for each seed."""
    everyone = [*candidate, *control]
    shared = set(everyone[0]).intersection(*everyone[1:])
    union = set().union(*everyone)
    keys = sorted(shared, key=lambda key: (key[1], key[0]))
    sides = [tuple(tuple(one[key] for key in keys) for one in side) for side in (candidate, control)]
    problem = _problem(everyone, keys, metric)
    return Pairing(sides[0], sides[1], len(keys), len(union) - len(keys), problem)


def _problem(everyone: Sequence[Outcomes], keys: Sequence[tuple[str, int]], metric: str) -> str | None:
    if not keys:
        first = [next(iter(one))[0] for one in (everyone[0], everyone[-1])]
        return (
            f"they share no item (the first of one is {first[0]}, of the other {first[1]}); "
            "score both on the same rows"
        )
    if len(keys) < 2:
        return "they share a single item, which can't be resampled; score more rows"
    for key in keys:
        rows = [one[key] for one in everyone]
        if len({row.reference for row in rows}) > 1:
            return (
                f"the right answer of {key[0]} differs between them; they were scored on different labels"
            )
        if metric in LIKELIHOODS:
            if not all(row.nll is not None and math.isfinite(row.nll) for row in rows):
                return f"{metric} of {key[0]} is not a finite number"
            if len({row.tokens for row in rows}) > 1:
                return (
                    f"{key[0]} has different numbers of tokens, from another tokenizer or max_length, so "
                    f"{metric} per token can't be compared"
                )
    return None
