"""Pairs any two runs item by item: is the second better than the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from tlscale.errors import UsageError
from tlscale.evaluation import labelfree
from tlscale.evaluation.types import WHOLE, comparable
from tlscale.report.averages import scores
from tlscale.report.claims import Margins, concluded
from tlscale.report.evidence import Evidence, Scored, gather
from tlscale.report.gate import gated
from tlscale.report.pairing import Pairing, pair
from tlscale.report.types import SEEDS_FOR_A_VERDICT, SUITES, ArmScore, Claim, Comparison

Sides = Sequence[tuple[Scored, Scored]]


def compare(run_a: Path, run_b: Path) -> Comparison:
    """Run `run_b` against `run_a`, each a run directory or a folder of `seed-*` run directories.

    The tuned model of each is compared, or the base of a run without one; margins are those of `run_b`.

    Raises:
        UsageError: one is no run, or they share no suite, metric or item, or were scored on other labels.
    """
    a, b = gather(run_a), gather(run_b)
    sides, reasons = _by_seed(_candidate(a), _candidate(b))
    claims: list[Claim] = []
    paired: dict[str, int] = {}
    unpaired: dict[str, int] = {}
    apart: list[str] = []
    for suite in suites([scored.measured for pair_of in sides for scored in pair_of]):
        metric = _metric(sides, suite)
        reasons += _whole(sides, suite)
        if metric is None:
            continue
        found = pair([y.outcomes(suite) for _, y in sides], [x.outcomes(suite) for x, _ in sides], metric)
        if found.paired == 0:
            apart.append(f"{suite}: not compared: {found.problem}")
            continue
        if found.problem is not None:
            raise UsageError(f"{run_a} and {run_b} can't be compared on {suite}: {found.problem}")
        claim, why = _claim(suite, metric, found, b, str(run_a))
        claims.append(claim)
        reasons += why
        paired[suite], unpaired[suite] = found.paired, found.unpaired
    if apart and not claims:
        raise UsageError(f"{run_a} and {run_b} can't be compared: {apart[0]}")
    kept, why = gated(sides, str(run_a), b.seeds[0].plan.recipe.report.level)
    reasons += why
    if not claims:
        raise UsageError(f"{run_a} and {run_b} were not scored on the same suite by the same metric")
    return Comparison(
        a=str(run_a),
        b=str(run_b),
        smoke=len(sides) < SEEDS_FOR_A_VERDICT,
        claims=tuple(claims),
        arms=(*_scores(a, str(run_a)), *_scores(b, str(run_b))),
        paired=paired,
        unpaired=unpaired,
        reasons=(*reasons, *apart),
        fingerprints={f"{side.root}/{k}": v for side in (a, b) for k, v in side.fingerprints.items()},
        gate=kept,
    )


def suites(rows: Sequence[Mapping[tuple[str, str], object]]) -> tuple[str, ...]:
    """The suites that any of `rows` was measured on: target, retention, then tasks in their order."""
    found = dict.fromkeys(suite for row in rows for suite, _ in row)
    return (*SUITES, *(suite for suite in found if suite not in SUITES))


def _claim(
    suite: str, metric: str, found: Pairing, b: Evidence, against: str
) -> tuple[Claim, tuple[str, ...]]:
    from tlscale.evaluation.contrast import contrast

    asked = b.seeds[0].plan.recipe.report
    margins = Margins(asked.retention_margin if suite == "retention" else asked.margin, asked.level)
    one = contrast(found.candidate, found.control, metric, level=margins.level, margin=margins.margin)
    return concluded(suite, metric, [(against, one)], margins, [one.p_value])


def _candidate(evidence: Evidence) -> dict[str, Scored]:
    found = evidence.arms.get("tuned") or evidence.arms.get("base")
    if not found:
        raise UsageError(f"{evidence.root} has no scores yet; run `tlscale eval` on it first")
    return dict(found)


def _by_seed(a: dict[str, Scored], b: dict[str, Scored]) -> tuple[Sides, list[str]]:
    """Pairs of seeds: by name where both have the same, one run with each of the other's, else in order."""
    shared = [name for name in a if name in b]
    if len(a) == len(b) == 1:
        return [(next(iter(a.values())), next(iter(b.values())))], []
    if 1 in (len(a), len(b)):
        single = "first" if len(a) == 1 else "second"
        count = max(len(a), len(b))
        left, right = (list(side.values()) * (count if len(side) == 1 else 1) for side in (a, b))
        return list(zip(left, right, strict=True)), [
            f"The {single} run has one seed, whose own spread is not in the interval."
        ]
    if len(shared) > 1:
        return [(a[name], b[name]) for name in shared], []
    return list(zip(a.values(), b.values(), strict=False)), [
        "Seeds have other names and are paired in order."
    ]


def _metric(sides: Sides, suite: str) -> str | None:
    """The first metric of the suite that every run measured; none of what only the gate looks at."""
    if suite == labelfree.HELD_OUT:
        return None
    rows = [scored.measured for pair_of in sides for scored in pair_of]
    found = (
        asked[1]
        for asked in rows[-1]
        if asked[0] == suite and comparable(asked[1]) and all(asked in row for row in rows)
    )
    return next(found, None)


def _whole(sides: Sides, suite: str) -> list[str]:
    """One sentence for each metric of the suite that no item has a share of, with both values."""
    found = []
    for name in WHOLE:
        values = [[one.measured.get((suite, name)) for one in pair_of] for pair_of in sides]
        known = [(a, b) for a, b in values if a is not None and b is not None]
        if len(known) == len(sides):
            a, b = (fmean(one.value for one in side) for side in zip(*known, strict=True))
            found.append(
                f"{suite}: {name} {a:.4f} and {b:.4f}, of all items together, which can't be paired."
            )
    return found


def _scores(evidence: Evidence, name: str) -> tuple[ArmScore, ...]:
    arm = "tuned" if "tuned" in evidence.arms else "base"
    return tuple(s.model_copy(update={"arm": name}) for s in scores(evidence) if s.arm == arm)
