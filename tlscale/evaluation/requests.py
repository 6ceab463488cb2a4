"""What a task asks of a language model, and what comes back. Free of torch.

A task turns a document into requests; a `Scorer` answers them in any order, by index; the task's metric
reads the answers. Chat messages are rendered to text before they get here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Choices:
    """Log-likelihood of each option after `context`, and of each after `unconditional` where one is given.

    `item` is the document's id. An option carries its own leading space. Tokens are cut as
    lm-evaluation-harness does: blanks at the end of the context go over to the option, context + option is
    tokenized as one text, and the option's tokens are those after the context's own. An empty context
    stands for the model's beginning-of-text token.
    """

    item: str
    context: str
    options: tuple[str, ...]
    unconditional: str | None = None


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-likelihood of `continuation` after `context`, and whether it is the greedy one."""

    item: str
    context: str
    continuation: str


@dataclass(frozen=True, slots=True)
class Rolling:
    """Log-likelihood of all of `text`, in windows of the model's context, each token scored once."""

    item: str
    text: str


@dataclass(frozen=True, slots=True)
class Generation:
    """Greedy continuation of `context`, up to the first of `stop` or `max_new_tokens`."""

    item: str
    context: str
    stop: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """One entry an option: summed log-probabilities in nats, and how many tokens they are over.

    `unconditional` are the sums after the request's `unconditional`; `cut` counts the tokens that the
    context lost at its beginning because it was too long.
    """

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]
    unconditional: tuple[float, ...] | None = None
    cut: int = 0


@dataclass(frozen=True, slots=True)
class LikelihoodScore:
    """Summed log-probability in nats, over so many tokens; `greedy` if each was the most probable one."""

    logprob: float
    greedy: bool
    tokens: int
    cut: int = 0


@dataclass(frozen=True, slots=True)
class RollingScore:
    """Summed log-probability of a text in nats, with its size in tokens, words and UTF-8 bytes."""

    logprob: float
    tokens: int
    words: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The continuation, without the stop string that ended it."""

    text: str
    tokens: int = 0
    cut: int = 0


Request: TypeAlias = Choices | Likelihood | Rolling | Generation
Result: TypeAlias = ChoiceScores | LikelihoodScore | RollingScore | Generated


class Scorer(Protocol):
    """A model that answers requests."""

    def overflow(self, requests: Sequence[Request]) -> tuple[int, ...]:
        """How many tokens each request's context is too long for the model; 0 where it fits.

        Always 0 for `Rolling`, whose windows are the model's own size.
        """
        ...

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result]]:
        """The result of every request with its index, each as soon as it is there, in any order.

        A context that is too long loses its beginning.

        Raises:
            DataError: an option or continuation is empty, or alone longer than the model's context.
        """
        ...
