"""Tasks that share one model, each with its own head: which classes belong to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

SEPARATOR = "/"
LANGUAGE = ("causal-lm", "masked-lm")
"""The tasks that predict tokens."""
PLACEWISE = (
    "albert",
    "bert",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""The `model_type` of masked language models whose head answers each place by itself."""


def task_sizes(labels: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Each task and how many classes it has, in the order of `labels`, which are named task/class."""
    return tuple(Counter(label.partition(SEPARATOR)[0] for label in labels).items())
