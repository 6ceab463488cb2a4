"""Reads the plan's data and turns it into examples, role by role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tlscale.data.examples import Example, prepare
from tlscale.errors import PlanError
from tlscale.planning.types import Plan
from tlscale.recipe.types import Source
from tlscale.sources import Row, read
from tlscale.sources.roles import GIVEN, Rows, role_rows
from tlscale.worker.console import Reporter

Roles = dict[str, tuple[Example, ...]]


def load_rows(plan: Plan) -> dict[str, tuple[Source, Rows]]:
    """The rows of each role.

    What is held out of the training rows depends on the recipe's seed alone,
    so that repeats by `seeds` are judged on the same items; few-shot sampling varies with the run's.
    """
    data, seed = plan.recipe.data, plan.recipe.seed
    found: dict[str, tuple[Source, Rows]] = {}
    for role in GIVEN:
        found |= role_rows(data, role, seed=seed, run_seed=plan.seed)
    return found


def thinned(rows: Sequence[Row], most: int | None) -> Rows:
    """At most `most` rows, evenly spaced, in their order."""
    if most is None or len(rows) <= most:
        return tuple(rows)
    return tuple(rows[index * len(rows) // most] for index in range(most))


def load_examples(plan: Plan, processor: Any, reporter: Reporter) -> Roles:
    """The examples of each role, and of each stage that brings its own rows (under the stage's name)."""
    rows = load_rows(plan)
    for role in ("test", "retention"):
        if role in rows:
            rows[role] = (rows[role][0], thinned(rows[role][1], plan.recipe.evaluate.max_rows))
    for planned in plan.stages:
        own = planned.stage.source
        if own is not None:
            rows[planned.stage.name] = (own, read(own, seed=plan.seed))
    if plan.stages and not all(p.stage.name in rows or "train" in rows for p in plan.stages):
        raise PlanError("data.train: missing; every stage needs rows to train on")
    return {role: _prepared(plan, processor, reporter, role, *pair) for role, pair in rows.items()}


def _prepared(
    plan: Plan, processor: Any, reporter: Reporter, role: str, source: Source, rows: Rows
) -> tuple[Example, ...]:
    made = prepare(
        rows,
        source,
        task=plan.recipe.model.task,
        processor=processor,
        labels=plan.facts.labels,
        max_length=plan.max_length,
        overflow=plan.recipe.data.overflow,
        loss_on=plan.recipe.data.loss_on,
    )
    report = made.report
    reporter.said("data", role=role, **asdict(report))
    text = f"{role}: {report.rows:,} rows, {report.examples:,} examples"
    if report.tokens:
        share = report.supervised_tokens / report.tokens
        text += (
            f", {report.tokens:,} tokens ({share:.0%} trained on)"
            if _masked(plan)
            else f", {report.tokens:,} tokens"
        )
    reporter.phase("data", text)
    if report.cut_rows or report.dropped_rows:
        reporter.warn(
            f"{role}: {report.cut_rows:,} rows longer than {plan.max_length:,} tokens lost "
            f"{report.cut_tokens:,} tokens, {report.dropped_rows:,} rows were dropped; "
            "raise data.max_length or set data.overflow=error"
        )
    return made.examples


def _masked(plan: Plan) -> bool:
    return plan.recipe.model.task == "causal-lm"
