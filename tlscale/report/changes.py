"""What changed between two arms, item by item: pure functions over stored outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tlscale.evaluation.types import Outcome

Pair = tuple[Outcome, Outcome]
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClassChange:
    """Share of the `n` items of a class that were right, before and after, pooled over seeds."""

    label: str
    n: int
    before: float
    after: float
    taken_for: str | None

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Flips:
    """The items of two arms by who was right: before only, after only, both, neither."""

    repaired: tuple[Pair, ...]
    broken: tuple[Pair, ...]
    both: int
    neither: int

    @property
    def n(self) -> int:
        return len(self.repaired) + len(self.broken) + self.both + self.neither


@dataclass(frozen=True)
class Shift:
    """How much likelier an item became, in nats per token; positive is better."""

    where: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.before - self.after


def paired(before: Iterable[Outcome], after: Iterable[Outcome]) -> tuple[Pair, ...]:
    """The outcomes of the same item at the same place, in the order of `after`."""
    known = {(o.item, o.where): o for o in before}
    return tuple((known[o.item, o.where], o) for o in after if (o.item, o.where) in known)


def per_class(pairs: Sequence[Pair], *, seeds: int = 1) -> tuple[ClassChange, ...]:
    """One line a class, the largest gain first; `pairs` are those of all `seeds` together.

    `taken_for` is the wrong answer that the later arm gives most often.
    """
    total = Counter(old.reference for old, _ in pairs)
    before = Counter(old.reference for old, _ in pairs if old.correct)
    after = Counter(new.reference for _, new in pairs if new.correct)
    wrong: dict[str | None, Counter[str]] = {}
    for _, new in pairs:
        if not new.correct and new.prediction is not None:
            wrong.setdefault(new.reference, Counter())[new.prediction] += 1
    found = [
        ClassChange(
            label=label,
            n=total[label] // seeds,
            before=before[label] / total[label],
            after=after[label] / total[label],
            taken_for=wrong[label].most_common(1)[0][0] if label in wrong else None,
        )
        for label in total
        if label is not None
    ]
    return tuple(sorted(found, key=lambda c: (-c.change, c.label)))


def flips(pairs: Sequence[Pair]) -> Flips:
    """Who was right before and after."""
    return Flips(
        repaired=tuple(p for p in pairs if p[1].correct and not p[0].correct),
        broken=tuple(p for p in pairs if p[0].correct and not p[1].correct),
        both=sum(old.correct and new.correct for old, new in pairs),
        neither=sum(not old.correct and not new.correct for old, new in pairs),
    )


def shifts(pairs: Sequence[Pair]) -> tuple[Shift, ...]:
    """Likelihoods before and after, the largest gain first."""
    found = [
        Shift(new.where, old.nll / old.tokens, new.nll / new.tokens)
        for old, new in pairs
        if old.nll is not None and new.nll is not None and old.tokens and new.tokens
    ]
    return tuple(sorted(found, key=lambda s: (-s.gain, s.where)))


def spread(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """At most `most` of `items`, evenly spaced, so that no choice of ours colours them."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[index * len(items) // most] for index in range(most))
