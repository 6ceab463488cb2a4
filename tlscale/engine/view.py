"""One micro-batch as the terms of an objective see it: everything that several need, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tlscale.errors import TlscaleError
from tlscale.models.likelihood import answers
from tlscale.models.places import at_labels

TRAIN = "train"
BESIDE = ("labels", "weights")  # of a batch, for the objective alone
Batch = Mapping[str, Any]
Batches = Mapping[str, Batch]
"""By stream: training rows under `train`, and `replay` and `unlabelled` where terms need them."""


def inputs(batch: Batch) -> dict[str, Any]:
    """What the model gets of a batch."""
    return {name: value for name, value in batch.items() if name not in BESIDE}


def answered(module: nn.Module, batch: Batch) -> Any:
    """The module's output; a masked language model's logits at the hidden places alone."""
    with at_labels(module, batch.get("labels")):
        return module(**inputs(batch))


def at_tokens(logits: Tensor, batch: Batch) -> Tensor:
    """float32 [N, classes or vocabulary]: the rows, or the tokens of `batch` that are learned, in order."""
    labels: Tensor = batch["labels"]
    return (answers(logits, labels)[0] if labels.dim() == 2 else logits).float()


@contextmanager
def keeping_random(device: torch.device) -> Iterator[None]:
    """Leaves the generators as they were: what is beside a step doesn't change what the step draws."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


class View:
    """A module on the batches of one micro-step.

    Args:
        module: What to call, possibly wrapped for data parallelism.
        batches: On the module's device.
        absent: Streams that stand here for no row at all, and must count for nothing.
        gather: [rows, ...] of this process -> those of all processes, with gradient.
        rank: This process among those that `gather` gathers from.
        progress: Share of the stage's steps that are done.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        *,
        absent: frozenset[str] = frozenset(),
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
        progress: float = 0.0,
        rank: int = 0,
    ) -> None:
        self.module, self.batches, self.absent, self.progress = module, batches, absent, progress
        self._rank = rank
        self._gather = gather
        self._outputs: dict[str, Any] = {}

    def output(self, stream: str = TRAIN) -> Any:
        """The module's output for the rows of a stream; one forward pass for each."""
        if stream in self._outputs:
            return self._outputs[stream]
        batch = self.batches[stream]
        with nullcontext() if stream == TRAIN else keeping_random(self.device):
            made = answered(self.module, batch)
        self._outputs[stream] = made
        return made

    def logits(self, stream: str = TRAIN) -> Tensor:
        """float32, [rows, classes] or [rows, length, vocabulary]; of hidden tokens as in `answered`."""
        logits: Tensor = self.output(stream).logits
        return logits.float()

    def answers(self, stream: str = TRAIN) -> Tensor:
        """float32 [N, classes or vocabulary]: of the rows, or of the tokens that are learned, in order."""
        return at_tokens(self.output(stream).logits, self.batches[stream])

    def labels(self, stream: str = TRAIN) -> Tensor:
        """[rows] of classes, or [rows, length] with -100 where nothing is learned."""
        labels: Tensor = self.batches[stream]["labels"]
        return labels

    def features(self, stream: str = TRAIN) -> Tensor:
        """float32 [rows, dimensions]: what the last layer of a head of our own gets.

        Raises:
            TlscaleError: the model has a head of another kind.
        """
        found = getattr(self.output(stream), "features", None)
        if found is None:
            raise TlscaleError("the objective aligns features, and this model's head doesn't tell its own")
        features: Tensor = found
        return features.float()

    def everywhere(self, rows: Tensor, stream: str) -> Tensor:
        """`rows` of a stream from all processes in rank order, without those that count for nothing."""
        return self._gather(rows[:0] if stream in self.absent else rows)

    def own(self, rows: Tensor, stream: str) -> Tensor:
        """Where this process's `rows` stand among those that `everywhere` gives: int64 [rows]."""
        owners = self.everywhere(torch.full((len(rows),), float(self._rank), device=rows.device), stream)
        return (owners == self._rank).nonzero().flatten()

    @cached_property
    def device(self) -> torch.device:
        """Where the batches are."""
        value = next(iter(self.batches[TRAIN].values()))
        tensor: Tensor = value if isinstance(value, Tensor) else next(iter(value.values()))
        return tensor.device
