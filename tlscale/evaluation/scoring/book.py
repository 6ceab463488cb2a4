"""Which paths each request needs, and results put together as the paths' answers come in."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tlscale.evaluation.requests import (
    Choices,
    ChoiceScores,
    Generation,
    Likelihood,
    LikelihoodScore,
    Request,
    Result,
    Rolling,
    RollingScore,
)
from tlscale.evaluation.scoring.encode import Cutter, Path


@dataclass(frozen=True)
class Book:
    """The distinct paths of all requests, and for each request the places of its own, in its order."""

    paths: tuple[Path, ...]
    of_request: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, cutter: Cutter, requests: Sequence[Request]) -> Book:
        """Cuts the texts of all requests but generations, which have no place here.

        Raises:
            DataError: an option or continuation is empty, or alone longer than the model's context.
        """
        pairs = [pair for request in requests for pair in _pairs(request)]
        cut = iter(cutter.pairs(pairs))
        windows = iter(cutter.rolling([r.text for r in requests if isinstance(r, Rolling)]))
        paths: list[Path] = []
        places: dict[tuple[bytes, bytes], int] = {}
        of_request = []
        for request in requests:
            mine = next(windows) if isinstance(request, Rolling) else [next(cut) for _ in _pairs(request)]
            found = []
            for path in mine:
                key = (path.inputs.tobytes(), path.targets.tobytes())
                if key not in places:
                    places[key] = len(paths)
                    paths.append(path)
                found.append(places[key])
            of_request.append(tuple(found))
        return cls(tuple(paths), tuple(of_request))


def _pairs(request: Request) -> list[tuple[str, str]]:
    if isinstance(request, Likelihood):
        return [(request.context, request.continuation)]
    if isinstance(request, Choices):
        contexts = [request.context] + ([] if request.unconditional is None else [request.unconditional])
        return [(context, option) for context in contexts for option in request.options]
    return []


class Tally:
    """Sums partial answers until a request has all of its own."""

    def __init__(self, requests: Sequence[Request], book: Book) -> None:
        self._requests, self._book = requests, book
        self._sums = np.zeros(len(book.paths))
        self._greedy = np.ones(len(book.paths), np.bool_)
        self._left = np.asarray([len(path.targets) for path in book.paths], np.int64)
        self._askers = defaultdict(list)
        for index, places in enumerate(book.of_request):
            for place in dict.fromkeys(places):
                self._askers[place].append(index)
        self._open = [len(set(places)) for places in book.of_request]
        self.answered = 0

    def empty(self) -> Iterator[tuple[int, Result]]:
        """Results of requests that have nothing to ask."""
        for index, request in enumerate(self._requests):
            if isinstance(request, Rolling) and not self._book.of_request[index]:
                yield index, self._result(index)

    def add(self, answers: Iterable[Sequence[float]]) -> Iterator[tuple[int, Result]]:
        """Takes (path, summed log-probability, all greedy, tokens) rows; yields what they complete."""
        for owner, logprob, greedy, tokens in answers:
            path = int(owner)
            self._sums[path] += logprob
            self._greedy[path] &= bool(greedy)
            self._left[path] -= int(tokens)
            if self._left[path]:
                continue
            for index in self._askers[path]:
                self._open[index] -= 1
                if not self._open[index]:
                    yield index, self._result(index)

    def _result(self, index: int) -> Result:
        self.answered += 1
        request, places = self._requests[index], self._book.of_request[index]
        sums = tuple(float(self._sums[place]) for place in places)
        tokens = tuple(len(self._book.paths[place].targets) for place in places)
        cut = max((self._book.paths[place].cut for place in places), default=0)
        if isinstance(request, Likelihood):
            return LikelihoodScore(sums[0], bool(self._greedy[places[0]]), tokens[0], cut)
        if isinstance(request, Choices):
            n = len(request.options)
            apart = None if request.unconditional is None else sums[n:]
            return ChoiceScores(sums[:n], tokens[:n], apart, cut)
        assert isinstance(request, Rolling), request
        words = len(re.split(r"\s+", request.text))
        return RollingScore(sum(sums), sum(tokens), words, len(request.text.encode()))


def generations(requests: Sequence[Request]) -> dict[int, Generation]:
    """The requests for text, by their index."""
    return {index: request for index, request in enumerate(requests) if isinstance(request, Generation)}
