"""Several heads in one: a row is answered by the classes of its own task alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

Sizes = Sequence[tuple[str, int]]
"""Each task and how many classes it has, in the order of the classes."""


def spans(sizes: Sizes) -> list[tuple[int, int]]:
    """The first class of each task, and the one after its last."""
    ends = list(accumulate(count for _, count in sizes))
    return list(zip([0, *ends[:-1]], ends, strict=True))


def task_of(labels: Tensor, sizes: Sizes) -> Tensor:
    """Which task each class belongs to: int64 [rows] -> [rows]."""
    ends = torch.tensor([end for _, end in spans(sizes)], device=labels.device)
    return torch.bucketize(labels, ends, right=True)


def own_task(logits: Tensor, labels: Tensor, sizes: Sizes) -> Tensor:
    """`logits` [rows, classes] with minus infinity outside the task that each of `labels` belongs to."""
    if not sizes:
        return logits
    owners = task_of(torch.arange(logits.shape[1], device=logits.device), sizes)
    return logits.masked_fill(owners != task_of(labels, sizes)[:, None], -torch.inf)
