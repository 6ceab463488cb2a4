"""Tasks that share one model, each with its own head: which classes belong to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

SEPARATOR = "/"
LANGUAGE = ("causal-lm", "masked-lm")
"""The tasks that predict tokens."""


def task_sizes(labels: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Each task and how many classes it has, in the order of `labels`, which are named task/class."""
    return tuple(Counter(label.partition(SEPARATOR)[0] for label in labels).items())
