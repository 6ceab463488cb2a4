"""What must hold of a run before it may be published; all of it is read from its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import RegressionError, UsageError, VerificationError
from tlscale.planning.compile import read_plan
from tlscale.planning.types import Plan
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import sha256
from tlscale.runs.result import result_kind

PASSING = ("POSITIVE", "EQUIVALENT")


@dataclass(frozen=True)
class Candidate:
    """A finished run that may be published: plan, artifact, what it came to, and any reservation."""

    layout: RunLayout
    plan: Plan
    artifact: Path
    manifest: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    despite: str | None


def admitted(layout: RunLayout, *, despite: str | None) -> Candidate:
    """The run in `layout`, if it may be published.

    Args:
        despite: Why it is to be published although its verdict is not good; goes on the card.

    Raises:
        UsageError: the run is not finished, or has nothing to publish.
        VerificationError: its result was changed since it was verified.
        RegressionError: the verdict is neither POSITIVE nor EQUIVALENT, and no reason was given.
    """
    plan = read_plan(layout.plan)
    if result_kind(layout) is None or not layout.done.is_file():
        raise UsageError(
            f"{layout.root}: not finished, so there is nothing to publish; start the same recipe again, "
            "and the run goes on where it stopped"
        )
    artifact = layout.artifact(plan.stages[-1].stage.name)
    manifest: dict[str, Any] = json.loads((artifact / MANIFEST).read_text(encoding="utf-8"))
    for name, said in manifest["files"].items():
        path = artifact / name
        if not path.is_file() or path.stat().st_size != said["bytes"] or sha256(path) != said["sha256"]:
            raise VerificationError(
                f"{path}: not the file that was verified; run the recipe again, or restore it from a copy"
            )
    verdict = find_verdict(layout, plan)
    return Candidate(layout, plan, artifact, manifest, verdict, _judged(layout, verdict, despite))


def find_verdict(layout: RunLayout, plan: Plan) -> Mapping[str, Any] | None:
    """The verdict on this run: its own, or that on all seeds of its recipe, which stands one folder up."""
    for root, name in ((layout.root, "."), (layout.root.parent, layout.root.name)):
        file = RunLayout(root).verdict
        if not file.is_file():
            continue
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found.get("fingerprints", {}).get(name) == plan.fingerprint:
            return found
    return None


def _judged(layout: RunLayout, verdict: Mapping[str, Any] | None, despite: str | None) -> str | None:
    word = "missing" if verdict is None else str(verdict["word"])
    if word in PASSING:
        return None
    if despite is not None and despite.strip():
        return despite.strip()
    how = f"tlscale report {layout.root} makes it; or " if verdict is None else ""
    raise RegressionError(
        f"{layout.root}: the verdict is {word}, and only {' and '.join(PASSING)} ones are published; "
        f"{how}give "
        '--despite-verdict "REASON", which will stand on the card'
    )
