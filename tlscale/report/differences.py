"""The part of a report that shows what changed: by class, and example by example."""

from __future__ import annotations

from collections.abc import Mapping

from tlscale.evaluation.types import Outcome
from tlscale.report import figures
from tlscale.report.blocks import (
    Answer,
    Block,
    Column,
    Example,
    Examples,
    Figure,
    Pair,
    Pairs,
    Section,
    Table,
    Text,
    Tone,
)
from tlscale.report.changes import ClassChange, Flips, flips, paired, per_class, shifts, spread
from tlscale.report.read import RunFacts, texts
from tlscale.report.words import SPACE, count, number, percent, plural

SHOWN_CLASSES, SHOWN_EXAMPLES, SHOWN_TEXT = 6, 6, 400


def changed(run: RunFacts) -> Section | None:
    """By class and by example: what went from wrong to right, and the other way."""
    pairs = [paired(s.outcomes("base", "target"), s.outcomes("tuned", "target")) for s in run.seeds]
    if not pairs[0]:
        return None
    answered = any(new.reference is not None for _, new in pairs[0])
    blocks = _answers(run, pairs) if answered else _likelihoods(pairs[0])
    return Section("changes", "What changed", tuple(blocks)) if blocks else None


def _answers(run: RunFacts, pairs: list[tuple[tuple[Outcome, Outcome], ...]]) -> list[Block]:
    flipped = flips(pairs[0])
    which = "" if len(run.seeds) == 1 else f" (the first of {len(run.seeds)} seeds)"
    pieces = (
        figures.Part("right before and after", flipped.both, "both"),
        figures.Part("repaired", len(flipped.repaired), "repaired"),
        figures.Part("broken", len(flipped.broken), "broken"),
        figures.Part("wrong before and after", flipped.neither, "neither"),
    )
    title = f"The {flipped.n:,} items by who was right{which}"
    blocks: list[Block] = [
        Figure(figures.parts("flips", title, pieces), title + "."),
        Pairs(
            tuple(Pair(p.name, count(p.amount), percent(p.amount / flipped.n, 1), p.style) for p in pieces)
        ),
    ]
    if run.first.plan.facts.labels:
        together = tuple(pair for seed in pairs for pair in seed)
        blocks += _classes(per_class(together, seeds=len(run.seeds)))
    return blocks + _flipped(run, flipped)


def _classes(classes: tuple[ClassChange, ...]) -> list[Block]:
    if len(classes) > 2 * SHOWN_CLASSES:
        best = [c for c in classes[:SHOWN_CLASSES] if c.change > 0]
        worst = [c for c in classes[-SHOWN_CLASSES:] if c.change < 0]
        shown, about = [*best, *worst], "The classes that gained most and those that lost most"
    else:
        shown, about = (
            [c for c in classes if c.change != 0],
            "Every class whose share of right answers changed",
        )
    rows = [
        figures.Dumbbell(
            c.label, c.before, c.after, f"{number(c.change * 100, 1, signed=True)}{SPACE}points"
        )
        for c in shown
    ]
    title = f"{about}: share of its items that were right, before (hollow) and after"
    blocks: list[Block] = [Figure(figures.dumbbells("classes", title, rows), title + ".")] if rows else []
    columns = (
        Column("class"),
        Column("items", True),
        Column("right before", True),
        Column("right after", True),
        Column("change (points)", True),
        Column("most often taken for"),
    )
    cells = tuple(
        (
            c.label,
            count(c.n),
            percent(c.before, 1),
            percent(c.after, 1),
            number(c.change * 100, 1, signed=True),
            c.taken_for or "nothing else",
        )
        for c in classes
    )
    worse = sum(c.change < 0 for c in classes)
    note = f"{worse:,} of {plural(len(classes), 'class')} got worse."
    table = Table(f"All {len(classes):,} classes", columns, cells, folded=len(classes) > SHOWN_CLASSES)
    return [*blocks, Text(note), table]


def _flipped(run: RunFacts, flipped: Flips) -> list[Block]:
    known, why = texts(run.first.plan)
    blocks: list[Block] = []
    for title, pairs in (("Broken: right before, wrong now", flipped.broken),
                         ("Repaired: wrong before, right now", flipped.repaired)):  # fmt: skip
        if not pairs:
            blocks.append(Text(f"{title}: no item."))
            continue
        shown = spread(pairs, SHOWN_EXAMPLES)
        many = (
            f"{len(shown)} of {len(pairs):,}, evenly spaced"
            if len(shown) < len(pairs)
            else f"all {len(pairs):,}"
        )
        blocks.append(Examples(title, many, tuple(_example(old, new, known) for old, new in shown)))
    return [*blocks, Text(why, note=True)] if why else blocks


def _example(old: Outcome, new: Outcome, known: Mapping[str, str]) -> Example:
    text = known.get(new.where)
    before: Tone = "good" if old.correct else "bad"
    after: Tone = "good" if new.correct else "bad"
    return Example(
        new.where,
        None if text is None else _short(text),
        (
            Answer("right answer", _short(new.reference or "none")),
            Answer("before", _short(old.prediction or "none"), before),
            Answer("after", _short(new.prediction or "none"), after),
        ),
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"


def _likelihoods(pairs: tuple[tuple[Outcome, Outcome], ...]) -> list[Block]:
    found = shifts(pairs)
    if not found:
        return []
    better = sum(s.gain > 0 for s in found)
    ends = (
        *found[:SHOWN_EXAMPLES],
        *[s for s in found[-SHOWN_EXAMPLES:] if s not in found[:SHOWN_EXAMPLES]],
    )
    columns = (
        Column("item"),
        Column("before (nats per token)", True),
        Column("after", True),
        Column("gain", True),
    )
    rows = tuple(
        (s.where, number(s.before, 3), number(s.after, 3), number(s.gain, 3, signed=True)) for s in ends
    )
    least, most = (number(s.gain, 3, signed=True) for s in (found[-1], found[0]))
    text = (
        f"{better:,} of {plural(len(found), 'item')} became likelier, {len(found) - better:,} did not. "
        f"Gains per item run from {least} to {most} nats per token."
    )
    return [Text(text), Table("The items that gained most and least", columns, rows)]
