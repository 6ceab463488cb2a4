"""Texts as bags of weighted words, to find the nearest and the most different ones. Pure, without arrays.

TF-IDF with cosine similarity (Salton and Buckley 1988); words are case-folded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of `text`, case-folded, without punctuation."""
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Index:
    """Texts, ready for questions of similarity; make it with `index`."""

    vectors: tuple[Mapping[str, float], ...]
    postings: Mapping[str, tuple[tuple[int, float], ...]]
    weights: Mapping[str, float]

    def similarities(self, text: str) -> dict[int, float]:
        """Cosine similarity of `text` with each indexed text that shares a word with it, by index."""
        found: dict[int, float] = {}
        for word, weight in _vector(text, self.weights).items():
            for at, other in self.postings.get(word, ()):
                found[at] = found.get(at, 0.0) + weight * other
        return found

    def nearest(self, text: str) -> list[int]:
        """All indices, the most similar first; equal ones, and those that share no word, in order."""
        found = self.similarities(text)
        return sorted(range(len(self.vectors)), key=lambda at: (-found.get(at, 0.0), at))

    def cosine(self, a: int, b: int) -> float:
        """Cosine similarity of two indexed texts."""
        one, two = self.vectors[a], self.vectors[b]
        return sum(weight * two.get(word, 0.0) for word, weight in one.items())


def index(texts: Sequence[str]) -> Index:
    """The index of `texts`."""
    seen = Counter(word for text in texts for word in set(words(text)))
    weights = {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in seen.items()}
    vectors = tuple(_vector(text, weights) for text in texts)
    postings: dict[str, list[tuple[int, float]]] = {}
    for at, vector in enumerate(vectors):
        for word, weight in vector.items():
            postings.setdefault(word, []).append((at, weight))
    return Index(vectors, {word: tuple(found) for word, found in postings.items()}, weights)


def _vector(text: str, weights: Mapping[str, float]) -> Mapping[str, float]:
    raw = {word: count * weights[word] for word, count in Counter(words(text)).items() if word in weights}
    length = math.sqrt(sum(value * value for value in raw.values()))
    return {word: value / length for word, value in raw.items()}
