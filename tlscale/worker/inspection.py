"""What the examples look like to the model: rendered, counted and examined; nothing is trained.

The result goes to one file of the run directory; the command line shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from pydantic import Field

from tlscale.data.examples import Example
from tlscale.errors import DataError
from tlscale.models.load import load_processor
from tlscale.planning.types import Plan
from tlscale.recipe.base import Frozen
from tlscale.recipe.types import Source
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json
from tlscale.sources import place, read
from tlscale.sources.doctor import Finding, ordered
from tlscale.sources.doctor.examine import refused
from tlscale.sources.roles import Rows
from tlscale.worker import tokencheck
from tlscale.worker.examples import load_rows
from tlscale.worker.tokencheck import Looked


class Request(Frozen):
    """What is asked of an inspection."""

    examples: int = Field(3, ge=0)


def inspect(plan: Plan, layout: RunLayout, as_json: bool, request: str = "{}") -> None:
    """Writes `layout.inspection`: per role a table, the asked examples as the model gets them, findings.

    Raises:
        PlanError: the tokenizer or image processor can't be loaded.
        DataError: the data can't be read.
    """
    examples = Request.model_validate_json(request).examples
    processor = load_processor(plan.recipe.model, plan.facts)
    found: list[Finding] = []
    roles = []
    for role, (source, rows) in _all_rows(plan).items():
        try:
            looked = tokencheck.look(plan, processor, role, source, rows)
        except DataError as error:
            found.append(refused(role, error))
            continue
        found += tokencheck.findings(plan, processor, looked)
        roles.append(_shown(plan, processor, looked, examples))
    findings = [asdict(one) for one in ordered(found)]
    write_json(layout.inspection, {"roles": roles, "findings": findings})


def _all_rows(plan: Plan) -> dict[str, tuple[Source, Rows]]:
    rows = load_rows(plan)
    for planned in plan.stages:
        own = planned.stage.source
        if own is not None:
            rows[planned.stage.name] = (own, read(own, seed=plan.seed))
    return rows


def _shown(plan: Plan, processor: Any, looked: Looked, examples: int) -> dict[str, Any]:
    counts = _counts(looked)
    report = asdict(looked.report)
    unknown, tokens = tokencheck.unknown(processor, looked)
    return {
        "role": looked.role,
        "where": place(looked.source),
        "format": looked.form,
        "total_rows": looked.total,
        **report,
        "counted": "supervised tokens" if _learns_tokens(looked) else "tokens",
        "per_row": {"min": min(counts), "median": median(counts), "max": max(counts)} if counts else None,
        "unknown_share": unknown / tokens if tokens else None,
        "max_length": plan.max_length,
        "shown": [_rendered(processor, example) for example in looked.examples[:examples]],
    }


def _learns_tokens(looked: Looked) -> bool:
    return any(example.loss is not None for example in looked.examples)


def _counts(looked: Looked) -> list[int]:
    """Supervised tokens of each row that gave an example, or tokens where the answer is a label."""
    by_row: dict[str, int] = {}
    for example in looked.examples:
        where = example.where.partition(" from token ")[0]
        learned = sum(example.loss) if example.loss is not None else len(example.tokens or ())
        by_row[where] = by_row.get(where, 0) + learned
    return list(by_row.values()) if any(by_row.values()) else []


def _rendered(processor: Any, example: Example) -> dict[str, Any]:
    """One example as runs of text that are trained on or masked."""
    segments: list[dict[str, Any]] = []
    if example.tokens is None:
        segments = [{"text": example.text, "trained": False}]
    else:
        loss = example.loss or [False] * len(example.tokens)
        at, said = 0, ""
        for i in range(1, len(loss) + 1):
            if i < len(loss) and loss[i] == loss[at]:
                continue
            # Decoded from the beginning: a decoder may drop the space before a piece's first word.
            whole = _decoded(processor, example.tokens[:i])
            piece = _decoded(processor, example.tokens[at:i])
            text = whole[len(said) :] if whole.startswith(said) else piece
            segments.append({"text": text, "trained": loss[at], "tokens": i - at})
            at, said = i, whole
    answer = example.reference if example.loss is None else None
    return {"where": example.where, "segments": segments, "answer": answer}


def _decoded(processor: Any, ids: Sequence[int]) -> str:
    return str(processor.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
