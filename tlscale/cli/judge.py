"""`tlscale report` and `tlscale compare`: what came of runs, from their directories alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from tlscale.errors import ExitCode, RegressionError
from tlscale.report.render import render
from tlscale.report.types import Claim, Verdict
from tlscale.report.verdict import compare as compare_runs
from tlscale.report.verdict import judge, write_verdict
from tlscale.report.words import gate_sentence

PASSING = ("POSITIVE", "EQUIVALENT")


def report(arguments: argparse.Namespace) -> int:
    """Judges a run and writes verdict.json, report.html and report.md into it."""
    run = Path(arguments.run_dir)
    verdict = conclude(run)
    print(verdict.model_dump_json(indent=1) if arguments.json else described(verdict, run))
    if arguments.gate:
        gate(verdict)
    return int(ExitCode.OK)


def compare(arguments: argparse.Namespace) -> int:
    """Pairs two runs item by item."""
    found = compare_runs(Path(arguments.run_a), Path(arguments.run_b))
    if arguments.json:
        print(found.model_dump_json(indent=1))
        return int(ExitCode.OK)
    print(f"{found.b} against {found.a}; positive is better")
    for claim in found.claims:
        print(f"  {line(claim)}")
    if found.gate is not None:
        print(f"  {gate_sentence(found.gate)}")
    for suite, paired in found.paired.items():
        print(f"  {suite}: {paired:,} items paired, {found.unpaired.get(suite, 0):,} not")
    for reason in found.reasons:
        print(f"  {reason}")
    return int(ExitCode.OK)


def conclude(run: Path) -> Verdict:
    """Judges a run and files the verdict and the report in its directory."""
    verdict = judge(run)
    write_verdict(run, verdict)
    render(run, verdict)
    return verdict


def described(verdict: Verdict, run: Path) -> str:
    """The verdict as a few lines of text."""
    smoke = (
        "   smoke: too few seeds for a verdict that would hold for another seed" if verdict.smoke else ""
    )
    lines = [f"verdict   {verdict.word}{smoke}"]
    lines += [f"          {line(claim)}" for claim in verdict.claims]
    if verdict.gate is not None:
        lines.append(f"          {gate_sentence(verdict.gate)}")
    lines += [f"          {reason}" for reason in verdict.reasons]
    return "\n".join([*lines, "", f"Open {run / 'report.html'}"])


def line(claim: Claim) -> str:
    """One claim: its word, the effect with its interval, and what it was measured against."""
    head = f"{claim.name:<9} {claim.word:<12}"
    if claim.effect is None or claim.low is None or claim.high is None:
        return f"{head} {claim.method}".rstrip()
    return (
        f"{head} {claim.metric} {claim.effect:+.4f} [{claim.low:+.4f}, {claim.high:+.4f}] against "
        f"{claim.against}, {claim.n_items:,} items x {claim.n_seeds} seed{'s'[: claim.n_seeds != 1]}"
    )


def gate(verdict: Verdict) -> None:
    """Lets a run pass that helped, or at least did no harm, and forgot nothing that matters.

    Raises:
        RegressionError: the verdict is neither POSITIVE nor EQUIVALENT, or retention is NEGATIVE.
    """
    retention = verdict.claim("retention")
    if verdict.word not in PASSING:
        raise RegressionError(
            f"{verdict.run}: the verdict is {verdict.word}; --gate lets {' and '.join(PASSING)} pass"
        )
    if retention is not None and retention.word == "NEGATIVE":
        raise RegressionError(
            f"{verdict.run}: retention is NEGATIVE, {line(retention)}; --gate lets no forgetting "
            "pass that is larger than report.retention_margin"
        )
