"""Puts a report together from the facts of a run and its verdict."""

from __future__ import annotations

from tlscale.report import account, differences, results, standing
from tlscale.report.blocks import Document, Section
from tlscale.report.read import RunFacts
from tlscale.report.types import Verdict
from tlscale.report.words import plural

LEVEL = 0.95


def document(run: RunFacts, verdict: Verdict) -> Document:
    """The report of `run`: the verdict first, the account of the run last. Pure but for re-reading data."""
    plan = run.first.plan
    level = verdict.claims[0].level if verdict.claims else LEVEL
    target = results.scores(run, verdict, "target", level)
    sections = (
        results.grounds(run, verdict),
        Section("scores", "Scores", target) if target else None,
        results.retention(run, verdict, level),
        results.tasks(run, verdict, level),
        standing.stages(run),
        differences.changed(run),
        account.training(run),
        account.cost(run, verdict),
        account.reality(run, verdict),
        account.provenance(run, verdict),
        account.use(run),
    )
    strategy = plan.recipe.strategy or {}
    kind = str(strategy.get("kind", "")) or " then ".join(stage.name for stage in plan.recipe.stages)
    about = (
        plan.recipe.model.task.replace("-", " "),
        plan.facts.model.rstrip("/").rpartition("/")[2] or plan.facts.model,
        f"strategy {kind}",
        plural(len(run.seeds), "seed"),
    )
    return Document(
        title=plan.recipe.name,
        about=about,
        opening=results.opening(run, verdict),
        sections=tuple(section for section in sections if section is not None and section.blocks),
    )
