"""What one example is, and the account of how rows became examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

import torch
from PIL import Image


@dataclass(frozen=True, eq=False)
class Example:
    """One thing to learn from or to be scored on; fields that its task doesn't use are `None`.

    `tokens`: token ids. `loss`: for language models, which of `tokens` are learned. For causal ones the
    first never is, nothing predicts it; for masked ones they are those that may be hidden, and where
    `shown` is there, those that are. `shown`: what the model reads in place of `tokens`. `label`: index
    into the recipe's labels. `pixels`: float32 [3, H, W], or of a clip its spectrogram [frames, bins].
    `picture`: what `pixels` were made of, where they are made anew in every epoch.
    `pair`: token ids of the positive text. `features`: the frozen backbone's vector [H]. `text` and
    `reference` are what a person would read: the input and the right answer. `weight`: what it counts in
    the task's loss, where examples count unequally.
    `prompt_tokens` of `tokens` come before the first learned completion. `segments`: lengths of the
    examples that were packed into this one, which must not see each other.
    """

    where: str
    text: str = ""
    reference: str = ""
    tokens: list[int] | None = None
    loss: list[bool] | None = None
    shown: list[int] | None = None
    prompt_tokens: int = 0
    label: int | None = None
    pixels: torch.Tensor | None = None
    picture: Image.Image | None = None
    pair: list[int] | None = None
    features: torch.Tensor | None = None
    segments: tuple[int, ...] | None = None
    weight: float | None = None


@runtime_checkable
class Measured(Protocol):
    """Examples that know their lengths without being read."""

    def lengths(self) -> list[int]: ...


class LazyExamples(Sequence[Example], ABC):
    """Examples that are made when they are asked for."""

    @abstractmethod
    def at(self, number: int) -> Example:
        """The example of a number: 0 up to one less than there are."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        numbers = range(len(self))[index]
        return self.at(numbers) if isinstance(numbers, int) else tuple(self.at(one) for one in numbers)


def lengths(examples: Sequence[Example]) -> list[int]:
    """The tokens of each example, both texts of a pair together; 0 where there are none."""
    if isinstance(examples, Measured):
        return examples.lengths()
    return [len(example.tokens or ()) + len(example.pair or ()) for example in examples]


@dataclass(frozen=True)
class PrepareReport:
    """What became of the rows: nothing is cut or dropped without being counted here.

    `tokens` counts those of the examples that were kept, `supervised_tokens` those with loss;
    `cut_tokens` were cut from `cut_rows` rows that were too long; `dropped_rows` gave no example.
    """

    rows: int
    examples: int
    tokens: int
    supervised_tokens: int
    cut_rows: int
    cut_tokens: int
    dropped_rows: int


@dataclass(frozen=True)
class Prepared:
    """Examples in the order of their rows."""

    examples: tuple[Example, ...]
    report: PrepareReport


@dataclass(frozen=True)
class Made:
    """What one row became: its examples, and how many of its tokens were cut away."""

    examples: tuple[Example, ...]
    cut_tokens: int = 0


def account(made: list[Made]) -> Prepared:
    """Collects what the rows became."""
    examples = tuple(example for one in made for example in one.examples)
    report = PrepareReport(
        rows=len(made),
        examples=len(examples),
        tokens=sum(len(e.tokens or ()) + len(e.pair or ()) for e in examples),
        supervised_tokens=sum(sum(e.loss or ()) for e in examples),
        cut_rows=sum(one.cut_tokens > 0 for one in made),
        cut_tokens=sum(one.cut_tokens for one in made),
        dropped_rows=sum(not one.examples for one in made),
    )
    return Prepared(examples, report)
