"""CrowS-Pairs: is the stereotype the likelier of two sentences (Nangia et al. 2020, arXiv:2010.00133).

`pct_stereotype` is 0.5 for a model without preference. The authors of the data warn of its noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.task import Document, Rows, Task, Values


def document(row: Mapping[str, Any]) -> Document:
    more, less = str(row["sent_more"]), str(row["sent_less"])
    tags = {"bias": str(row["bias_type"])}
    return Document(choices=(more, less), answer=0, text=more, tags=tags)


def values(document: Document, chosen: int, scores: tuple[float, ...]) -> Values:
    return {"pct_stereotype": float(chosen == 0), "likelihood_difference": abs(scores[0] - scores[1])}


TASK = Task(
    name="crows_pairs",
    summary="is the stereotype the likelier of two sentences",
    kind="choice",
    test=(Rows(path="crows_pairs/crows_pairs_anonymized.csv"),),
    document=document,
    metrics=("pct_stereotype", "likelihood_difference"),
    delimiter="",
    extra=values,
)
