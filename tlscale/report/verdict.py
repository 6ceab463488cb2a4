"""Judges a run from its directory: did the transfer help, and what did it forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlscale.evaluation import labelfree
from tlscale.evaluation.types import comparable
from tlscale.planning.objective_checks import ON_TARGET, STAGE_ON_TARGET
from tlscale.report.averages import scores
from tlscale.report.claims import Margins, concluded, unmeasured
from tlscale.report.compare import compare, suites
from tlscale.report.ensemble import ensemble_scores
from tlscale.report.evidence import Evidence, RunFolder, Scored, gather
from tlscale.report.gate import gated
from tlscale.report.hygiene import looks
from tlscale.report.pairing import pair
from tlscale.report.types import CONTROLS, SEEDS_FOR_A_VERDICT, SUITES, Claim, Gate, Verdict
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines, write_json

__all__ = ["compare", "judge", "schema", "write_verdict"]

CANDIDATE = "tuned"
SOURCE_ONLY = "source_only"
FITTING_CONTROLS = {
    "sequence-classification": CONTROLS,
    "image-classification": ("majority", "class_mean", "features", "scratch"),
    "audio-classification": ("majority", "class_mean", "features", "scratch"),
    "causal-lm": ("scratch",),
    "masked-lm": ("scratch",),
    "sentence-embedding": ("scratch",),
}
SAME_AS_BASE = {"majority class": "majority", "zero-shot by label names": "zero_shot"}


def judge(run: Path) -> Verdict:
    """The verdict on a run directory, or on a folder of `seed-*` run directories.

    Raises:
        UsageError: it is neither, or a file in it is not what a run writes.
    """
    evidence = gather(run)
    asked = evidence.seeds[0].plan.recipe.report
    target, why = _claim(evidence, "target", Margins(asked.margin, asked.level))
    retention, more = _claim(evidence, "retention", Margins(asked.retention_margin, asked.level))
    tasks = []
    for name in suites([s.measured for s in evidence.arms.get(CANDIDATE, {}).values()]):
        if name not in (*SUITES, labelfree.SUITE, labelfree.HELD_OUT):
            claim, others = _claim(evidence, name, Margins(asked.margin, asked.level))
            tasks.append(claim)
            more += others
    kept, unkept = _gate(evidence, asked.level)
    more += unkept
    seeds = target.n_seeds or len(evidence.arms.get(CANDIDATE, ()))
    missing = _missing(evidence)
    reasons = [*evidence.reasons, *why, *more]
    if seeds < SEEDS_FOR_A_VERDICT:
        reasons.append(
            f"{seeds} of the {SEEDS_FOR_A_VERDICT} seeds that a verdict needs: this is a smoke result; "
            f"set seeds: [0, 1, 2, 3, 4]."
        )
    reasons += looks(evidence)
    if missing:
        reasons.append(f"Not run, so the gain over them is unknown: {', '.join(missing)}.")
    return Verdict(
        run=str(run),
        word=target.word,
        smoke=seeds < SEEDS_FOR_A_VERDICT,
        claims=(target, retention, *tasks),
        arms=(*scores(evidence), *ensemble_scores(evidence)),
        missing_arms=missing,
        cost=_cost(evidence.seeds),
        reasons=tuple(reasons),
        fingerprints=evidence.fingerprints,
        gate=kept,
    )


def _gate(evidence: Evidence, level: float) -> tuple[Gate | None, tuple[str, ...]]:
    """Whether the adapted result is to be kept rather than the arm that was trained without adapting."""
    plain, adapted = (evidence.arms.get(arm, {}) for arm in (SOURCE_ONLY, CANDIDATE))
    return gated([(plain[seed], adapted[seed]) for seed in adapted if seed in plain], SOURCE_ONLY, level)


def write_verdict(run: Path, verdict: Verdict) -> Path:
    """Files `verdict` as verdict.json in the directory `run`."""
    path = RunLayout(run).verdict
    write_json(path, verdict.model_dump(mode="json"))
    return path


def schema() -> dict[str, Any]:
    """The JSON schema of verdict.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tlscale verdict",
        **{k: v for k, v in Verdict.model_json_schema(mode="serialization").items() if k != "title"},
    }


def _claim(evidence: Evidence, name: str, margins: Margins) -> tuple[Claim, tuple[str, ...]]:
    from tlscale.evaluation.contrast import contrast
    from tlscale.evaluation.stats import holm

    candidate = evidence.arms.get(CANDIDATE, {})
    others = {arm: by_seed for arm, by_seed in evidence.arms.items() if arm != CANDIDATE}
    if name != "target":
        others = {arm: by_seed for arm, by_seed in others.items() if arm == "base"}
    metric = _metric(candidate, others, name)
    if metric is None:
        return unmeasured(name, margins, _why_unmeasured(candidate, name)), ()
    contrasted, reasons = [], []
    for arm, by_seed in others.items():
        seeds = [
            seed
            for seed in candidate
            if seed in by_seed
            and all((name, metric) in side[seed].measured for side in (candidate, by_seed))
        ]
        if not seeds:
            continue
        found = pair(
            [candidate[seed].outcomes(name) for seed in seeds],
            [by_seed[seed].outcomes(name) for seed in seeds],
            metric,
        )
        if found.problem is not None:
            reasons.append(f"{name}: not compared with {arm}: {found.problem}.")
            continue
        if found.unpaired:
            reasons.append(f"{name}: {found.unpaired:,} items are not paired with those of {arm}.")
        if len(seeds) < len(candidate):
            reasons.append(f"{name}: {arm} ran for {len(seeds)} of {len(candidate)} seeds.")
        one = contrast(found.candidate, found.control, metric, level=margins.level, margin=margins.margin)
        contrasted.append((arm, one))
    if not contrasted:
        return unmeasured(name, margins, "No arm could be compared with the tuned model.", metric), tuple(
            reasons
        )
    claim, more = concluded(name, metric, contrasted, margins, holm([c.p_value for _, c in contrasted]))
    return claim, (*reasons, *more)


def _metric(
    candidate: Mapping[str, Scored], others: Mapping[str, Mapping[str, Scored]], suite: str
) -> str | None:
    """The first metric of the suite that the candidate shares with a control."""
    known = {
        asked for by_seed in others.values() for scored in by_seed.values() for asked in scored.measured
    }
    for scored in candidate.values():
        for asked in scored.measured:
            if asked[0] == suite and asked in known and comparable(asked[1]):
                return asked[1]
    return None


def _why_unmeasured(candidate: Mapping[str, Scored], suite: str) -> str:
    if not candidate:
        return "The run has no scores of a trained model yet."
    if not any(asked[0] == suite for scored in candidate.values() for asked in scored.measured):
        role = "test" if suite == "target" else suite
        return f"The recipe has no data.{role}."
    return "No control arm was scored by a metric of the tuned model."


def _missing(evidence: Evidence) -> tuple[str, ...]:
    plan = evidence.seeds[0].plan
    ran = set(evidence.arms)
    ran |= {
        SAME_AS_BASE[m.predictor]
        for scored in evidence.arms.get("base", {}).values()
        for m in scored.measured.values()
        if m.predictor in SAME_AS_BASE
    }
    if plan.recipe.model.init == "scratch":
        ran.add("scratch")
    trained = [d.name for stage in plan.stages for d in stage.decisions if d.lr_scale is not None]
    if trained and all(name.startswith("head.") for name in trained):
        ran.add("features")
    fitting = FITTING_CONTROLS.get(plan.recipe.model.task, CONTROLS)
    on_target = (*ON_TARGET, *STAGE_ON_TARGET)
    if any(term.name in on_target for stage in plan.stages for term in stage.stage.objective):
        fitting = (*fitting, SOURCE_ONLY)
    return tuple(arm for arm in fitting if arm not in ran)


def _cost(seeds: Sequence[RunFolder]) -> dict[str, float | None]:
    seconds, tokens, peaks = 0.0, 0.0, []
    for run in seeds:
        rows = [row for row in read_lines(run.layout.events) if row.get("event") == "trained"]
        for row in {row["stage"]: row for row in rows}.values():
            seconds += row["seconds"]
            tokens += row["tokens"]
            peaks.append(row.get("peak_memory_bytes"))
    stages = seeds[0].plan.stages
    known = [float(peak) for peak in peaks if peak is not None]
    return {
        "seconds": round(seconds, 2),
        "tokens": tokens,
        "trainable": float(max((stage.trainable for stage in stages), default=0)),
        "total": float(max((stage.total for stage in stages), default=0)),
        "peak_memory_bytes": max(known, default=None),
    }
