"""Which items of a task stand in the training data: word for word, in part, or nearly. Pure.

Reported, and scored apart; nothing is dropped, since shared phrases alone are no proof. Texts are compared
by their case-folded words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tlscale.evaluation.tasks.prompt import answer, question
from tlscale.evaluation.tasks.similar import words
from tlscale.evaluation.tasks.task import Document

# Thirteen words, as Brown et al. 2020 (arXiv:2005.14165) looked for; a shorter item is looked for
# whole, and one of few words only where a training text has nothing else.
GRAM, FEWEST = 13, 8
# Near-duplicates: MinHash (Broder 1997) over shingles of three words, 32 bands of 4 rows.
SHINGLE, BANDS, ROWS = 3, 32, 4
SIMILAR = 0.7
# A longer text can't be nearly the same as an item; what it quotes is found by its n-grams.
LONGEST = 1000
PRIME = (1 << 61) - 1


@dataclass(frozen=True)
class Known:
    """The training data as it is looked things up in; make it with `known`."""

    whole: frozenset[str]
    grams: frozenset[int]
    bands: Mapping[tuple[int, ...], tuple[int, ...]]
    shingles: tuple[frozenset[int], ...]


def known(texts: Iterable[str]) -> Known:
    """The index of training `texts`."""
    whole: set[str] = set()
    grams: set[int] = set()
    bands: dict[tuple[int, ...], list[int]] = {}
    kept: list[frozenset[int]] = []
    for text in texts:
        found = words(text)
        whole.add(" ".join(found))
        for length in range(FEWEST, GRAM + 1):
            grams.update(_grams(found, length))
        if len(found) <= LONGEST:
            shingles = frozenset(_grams(found, SHINGLE))
            for band in _bands(shingles):
                bands.setdefault(band, []).append(len(kept))
            kept.append(shingles)
    table = {band: tuple(places) for band, places in bands.items()}
    return Known(frozenset(whole), frozenset(grams), table, tuple(kept))


def overlaps(documents: Sequence[Document], training: Known) -> dict[int, str]:
    """Which documents are contaminated, by index, and how: exact, ngram or minhash."""
    found: dict[int, str] = {}
    for index, document in enumerate(documents):
        ways = [_how(words(content), training) for content in contents(document)]
        first = next((way for way in ("exact", "ngram", "minhash") if way in ways), None)
        if first is not None:
            found[index] = first
    return found


def contents(document: Document) -> tuple[str, ...]:
    """What of a document might be in training data: its bare text, and the question with its answer."""
    asked = f"{question(document)} {answer(document)}" if document.answer is not None else ""
    return tuple(text for text in dict.fromkeys((document.text, asked)) if words(text))


def _length(count: int) -> int | None:
    """The n of the n-grams for a text of so many words; `None` where it is too short for any."""
    return None if count < FEWEST else min(GRAM, count)


def _how(found: Sequence[str], training: Known) -> str | None:
    if " ".join(found) in training.whole:
        return "exact"
    length = _length(len(found))
    if length is not None and any(gram in training.grams for gram in _grams(found, length)):
        return "ngram"
    shingles = frozenset(_grams(found, SHINGLE))
    candidates = {at for band in _bands(shingles) for at in training.bands.get(band, ())}
    if any(_jaccard(shingles, training.shingles[at]) >= SIMILAR for at in candidates):
        return "minhash"
    return None


def _grams(found: Sequence[str], length: int) -> list[int]:
    """Hashes of the runs of `length` words, the same in every process."""
    return [
        int.from_bytes(hashlib.blake2b(" ".join(found[at : at + length]).encode(), digest_size=7).digest())
        for at in range(len(found) - length + 1)
    ]


def _hashes() -> tuple[tuple[int, int], ...]:
    generator = random.Random("minhash")
    return tuple((generator.randrange(1, PRIME), generator.randrange(PRIME)) for _ in range(BANDS * ROWS))


HASHES = _hashes()


def _bands(shingles: frozenset[int]) -> list[tuple[int, ...]]:
    """The signature in bands, each with its number; two texts that share one may be near-duplicates."""
    if not shingles:
        return []
    signature = [min((a * one + b) % PRIME for one in shingles) for a, b in HASHES]
    return [(band, *signature[band * ROWS : (band + 1) * ROWS]) for band in range(BANDS)]


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    return len(a & b) / len(a | b)
