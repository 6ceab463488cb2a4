"""Which examples stand before a question: chosen from the training rows only, never the item itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from tlscale.errors import DataError, UsageError
from tlscale.evaluation.tasks import similar
from tlscale.evaluation.tasks.task import Document
from tlscale.recipe.evaluate import Selection

Select: TypeAlias = Callable[[Document], tuple[Document, ...]]
Ranked: TypeAlias = Callable[[Document], Iterable[int]]

# Farthest points are looked for among so many; more would cost the square of it.
DIVERSE_AMONG, MOST_DIVERSE = 1000, 64


def selector(
    kind: Selection, train: Sequence[Document], *, shots: int, seed: int, order_seed: int | None = None
) -> Select:
    """Chooses `shots` examples for a document.

    Args:
        kind: `fixed`: one draw for all documents; `first`: the first in file order; `random`: a draw for
            each document; `balanced`: one draw with as many of each answer as possible; `nearest`: the
            most similar by words, the nearest last; `diverse`: examples far from each other.
        train: Where examples are taken from.
        seed: Of the draws.
        order_seed: Shuffles each chosen list; `None` leaves its order.

    Raises:
        UsageError: there are fewer examples than shots.
    """
    if shots == 0:
        return lambda document: ()
    if len(train) < shots:
        raise UsageError(f"{shots} shots are asked for, but there are {len(train)} rows to take them from")
    return partial(_choose, RANKINGS[kind](train, seed), train, kind, shots, order_seed)


def _choose(
    ranked: Ranked,
    train: Sequence[Document],
    kind: Selection,
    shots: int,
    order_seed: int | None,
    document: Document,
) -> tuple[Document, ...]:
    own = content(document)
    found = []
    for index in ranked(document):
        if content(train[index]) != own:
            found.append(train[index])
            if len(found) == shots:
                break
    else:
        raise DataError(
            f"{document.where}: {len(found)} rows are left to take {shots} examples from, without the item "
            "itself; ask for fewer shots"
        )
    if kind == "nearest":
        found.reverse()
    if order_seed is not None:
        random.Random(f"order {order_seed}").shuffle(found)
    return tuple(found)


def content(document: Document) -> str:
    """What two documents with the same content have in common: all words of the question."""
    if document.image is not None:
        return document.where
    return " ".join(" ".join((document.query, *document.contexts, document.text)).casefold().split())


def _fixed(train: Sequence[Document], seed: int) -> Ranked:
    order = list(range(len(train)))
    random.Random(f"fixed {seed}").shuffle(order)
    return lambda document: order


def _first(train: Sequence[Document], seed: int) -> Ranked:
    return lambda document: range(len(train))


def _random(train: Sequence[Document], seed: int) -> Ranked:
    def ranked(document: Document) -> Iterable[int]:
        generator = random.Random(f"random {seed} {document.id}")
        seen: set[int] = set()
        while len(seen) < len(train):
            index = generator.randrange(len(train))
            if index not in seen:
                seen.add(index)
                yield index

    return ranked


def _balanced(train: Sequence[Document], seed: int) -> Ranked:
    generator = random.Random(f"balanced {seed}")
    by_answer: dict[str, list[int]] = {}
    for index, document in enumerate(train):
        by_answer.setdefault(str(document.answer), []).append(index)
    groups = [by_answer[answer] for answer in sorted(by_answer)]
    for group in groups:
        generator.shuffle(group)
    generator.shuffle(groups)
    order = [group[turn] for turn in range(max(map(len, groups))) for group in groups if turn < len(group)]
    return lambda document: order


def _nearest(train: Sequence[Document], seed: int) -> Ranked:
    known = similar.index([content(document) for document in train])
    return lambda document: known.nearest(content(document))


def _diverse(train: Sequence[Document], seed: int) -> Ranked:
    """Greedy farthest points (Gonzalez 1985): each next one is least similar to those before."""
    pool = random.Random(f"diverse {seed}").sample(range(len(train)), min(len(train), DIVERSE_AMONG))
    known = similar.index([content(train[index]) for index in pool])
    closest = dict.fromkeys(range(len(pool)), 0.0)
    order: list[int] = []
    while closest and len(order) < MOST_DIVERSE:
        best = min(closest, key=lambda at: (closest[at], at))
        del closest[best]
        order.append(pool[best])
        closest = {at: max(near, known.cosine(at, best)) for at, near in closest.items()}
    order += [pool[at] for at in closest]
    return lambda document: order


RANKINGS: dict[Selection, Callable[[Sequence[Document], int], Ranked]] = {
    "fixed": _fixed,
    "first": _first,
    "random": _random,
    "balanced": _balanced,
    "nearest": _nearest,
    "diverse": _diverse,
}
