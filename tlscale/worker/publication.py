"""What publishing needs a model for: proving a result before it goes, and judging what came back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch

from tlscale.errors import PlanError, VerificationError
from tlscale.models import artifact
from tlscale.models.load import load_processor
from tlscale.models.merge import export
from tlscale.models.published import anonymous, examine, record
from tlscale.models.verify import verify
from tlscale.planning.types import Plan
from tlscale.recipe.base import Frozen
from tlscale.runs.layout import RunLayout
from tlscale.worker.alone import alone
from tlscale.worker.chain import starting_point
from tlscale.worker.stages import describe


class Preparation(Frozen):
    """Where what the model has to give to a publication is to go; a merged checkpoint into a new folder."""

    probe: str
    merged: str | None = None


class Examination(Frozen):
    """The folder of files that came from elsewhere, checked for code and pickles before."""

    folder: str


def prepare(plan: Plan, layout: RunLayout, as_json: bool, request: str) -> None:
    """Verifies the run's result, and records what it makes of random inputs.

    The recorded inputs of a run are rows of its training data; those of a publication must not be.

    Raises:
        VerificationError: the result is not what was trained.
    """
    asked = Preparation.model_validate_json(request)
    job = alone(plan, layout)
    planned = job.plan.stages[-1]
    folder, model = layout.artifact(planned.stage.name), starting_point(job, planned)[0]
    facts, world = job.plan.facts, job.plan.world
    report = verify(folder, model=model, facts=facts, world=world)
    if report.problems:
        raise VerificationError("\n".join(f"{folder}: {problem}" for problem in report.problems))
    if asked.merged is not None:
        processor = load_processor(plan.recipe.model, facts)
        export(folder, Path(asked.merged), processor, model=model, facts=facts, world=world)
        folder = Path(asked.merged)
    module = artifact.load(folder, model=model, facts=facts, world=world).to(world.device)
    manifest, (inputs, _) = artifact.read_manifest(folder), artifact.read_probe(layout.adapter)
    random = anonymous(inputs, facts.architecture.vocab_size)
    record(module, random, Path(asked.probe), manifest["compute_dtype"])
    print(json.dumps(report.summary()) if as_json else f"verified  {describe(report)}")


def check(plan: Plan, layout: RunLayout, as_json: bool, request: str) -> None:
    """Examines files from elsewhere on the base that the plan names.

    Raises:
        VerificationError: they don't load, don't fit the base, or do nothing.
    """
    asked = Examination.model_validate_json(request)
    if plan.world.device == "cuda" and not torch.cuda.is_available():
        raise PlanError("planned for a GPU, and torch sees none")
    found = examine(Path(asked.folder), model=plan.recipe.model, facts=plan.facts, world=plan.world)
    if as_json:
        print(
            json.dumps({**asdict(found), "effect": found.effect if math.isfinite(found.effect) else None})
        )
    if found.problems:
        raise VerificationError("\n".join(found.problems))
    if not as_json:
        again = found.max_difference
        proof = "" if again is None else f", recorded outputs reproduced to {again:.1e}"
        effect = f", moves outputs by up to {found.effect:.2g}" if found.kind == "adapter" else ""
        print(f"examined  {found.kind}: {found.tensors} tensors{effect}{proof}")
