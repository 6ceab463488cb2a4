"""A card's metadata as the Hub reads it: base, licence, data sets, tags, and evaluation results.

Scores on data sets of the Hub go into `.eval_results/`, the Hub's current format
(https://huggingface.co/docs/hub/eval-results), which needs a data set's id; scores on any other rows go
into the card's `model-index`, which doesn't.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from tlscale.planning.types import Plan
from tlscale.publish.content import Base
from tlscale.publish.evidence import DataPart
from tlscale.publish.licences import Chain

PIPELINES = {
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "sequence-classification": "text-classification",
    "image-classification": "image-classification",
    "audio-classification": "audio-classification",
    "sentence-embedding": "sentence-similarity",
}
RESULTS = ".eval_results"


def metadata(
    plan: Plan,
    *,
    kind: str,
    base: Base | None,
    chain: Chain,
    data: Sequence[DataPart],
    scores: Sequence[Mapping[str, Any]],
) -> str:
    """The YAML block at the head of a card.

    Args:
        kind: adapter, head or checkpoint.
        base: `None` where the base is not on the Hub: then the metadata name none.
        scores: The measurements of the tuned model on the target suite.
    """
    task = PIPELINES[plan.recipe.model.task]
    method = str(
        (plan.recipe.strategy or {}).get("method") or (plan.recipe.strategy or {}).get("kind", "stages")
    )
    made: dict[str, Any] = {}
    if base is not None:
        made["base_model"] = base.name
        made["base_model_relation"] = "adapter" if kind in ("adapter", "adapters") else "finetune"
    made["library_name"] = {"adapter": "peft", "adapters": "peft", "checkpoint": "transformers"}.get(
        kind, "tlscale"
    )
    made["pipeline_tag"] = task
    made["license"] = chain.licence
    sets = list(dict.fromkeys(part.hub for part in data if part.hub and part.role != "retention"))
    if sets:
        made["datasets"] = sets
    made["tags"] = list(dict.fromkeys(["tlscale", method, plan.recipe.model.task]))
    index = _index(plan, task, data, scores)
    if index:
        made["model-index"] = index
    text = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}---\n"


def _index(
    plan: Plan, task: str, data: Sequence[DataPart], scores: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    tested = _tested(data)
    if tested is None or tested.hub is not None or not scores:
        return []
    results = {
        "task": {"type": task},
        "dataset": {"type": tested.name, "name": tested.name, "split": tested.role},
        "metrics": [{"type": row["metric"], "value": row["value"], "verified": False} for row in scores],
    }
    return [{"name": plan.recipe.name, "results": [results]}]


def _tested(data: Sequence[DataPart]) -> DataPart | None:
    roles = {part.role: part for part in data}
    return roles.get("test") or roles.get("train")


def eval_results(
    plan: Plan, data: Sequence[DataPart], scores: Sequence[Mapping[str, Any]], finished: float | None
) -> dict[str, str]:
    """Files of the Hub's evaluation results by name; none where the test rows are not on the Hub."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    tested = _tested(data)
    if tested is None or tested.hub is None or not scores:
        return {}
    when = None if finished is None else datetime.fromtimestamp(finished, UTC).date().isoformat()
    entries = [
        EvalResultEntry(
            dataset_id=tested.hub,
            task_id=str(row["metric"]),
            value=row["value"],
            dataset_revision=tested.revision,
            date=when,
            notes=f"{row['predictor']}, {row['n']} items, fine-tuned and measured by tlscale",
        )
        for row in scores
    ]
    name = re.sub(r"[^A-Za-z0-9-]+", "-", tested.hub)
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    return {f"{RESULTS}/{name}.yaml": text}
