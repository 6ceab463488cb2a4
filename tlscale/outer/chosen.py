"""The recipe with the best settings of a sweep, written to be run again."""

from __future__ import annotations

from typing import Any

import yaml

from tlscale.outer.sweep import CANDIDATE, Program
from tlscale.outer.trials import overrides
from tlscale.recipe.parse import apply_overrides
from tlscale.report.sweeps import SweepResult
from tlscale.runs.record import write_text


def write_best(made: Program, result: SweepResult) -> None:
    """Writes `layout.best`: the recipe as it was written, with the best settings of every arm in it.

    The number of trials of each arm goes with it, so that a verdict can say that all had as many.
    """
    best = {search.arm: search for search in result.searches}
    candidate = best[CANDIDATE]
    assert candidate.chosen is not None
    raw, _ = apply_overrides(dict(made.asked.raw), overrides(candidate.chosen.parameters))
    raw.pop("sweep", None)
    evaluate: dict[str, Any] = dict(raw.get("evaluate") or {})
    arms = {
        search.arm: {**(evaluate.get("arm_settings") or {}).get(search.arm, {}), **search.chosen.parameters}
        for search in result.searches
        if search.arm != CANDIDATE and search.chosen is not None
    }
    if arms:
        evaluate["arm_settings"] = {**(evaluate.get("arm_settings") or {}), **arms}
    evaluate["trials"] = {search.arm: len(search.trials) for search in result.searches}
    raw["evaluate"] = evaluate
    said = (
        f"# The best of {len(candidate.trials)} trials of tlscale sweep: {candidate.metric} "
        f"{candidate.chosen.value:.4g} on the validation rows; the test rows were not read.\n"
        "#\n"
        f"#   tlscale run {made.layout.best}\n"
    )
    write_text(made.layout.best, said + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))
