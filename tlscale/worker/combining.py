"""What a stage of fusion says when it has learned: how much it takes of each adapter."""

from __future__ import annotations

from torch import nn

from tlscale.data.arriving import Arriving
from tlscale.engine.loop import Training
from tlscale.models.fusion import Fusion, mean_shares
from tlscale.worker.chain import Job

ROWS, AT_ONCE = 64, 16


def say_shares(job: Job, training: Training, module: nn.Module) -> None:
    """The mean share of each adapter over some training rows; nothing in stages of another kind.

    `module` is whole on this process and in evaluation.
    """
    fusion = getattr(module, "routes", None)
    adapter = training.planned.stage.adapter
    if not isinstance(fusion, Fusion) or adapter is None or isinstance(training.examples, Arriving):
        return
    rows = [training.examples[index] for index in range(min(ROWS, len(training.examples)))]
    made = [training.collate(rows[at : at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)]
    batches = [{k: v.to(job.runtime.device) for k, v in one.items() if k != "labels"} for one in made]
    shares = mean_shares(module, fusion, batches)
    names = adapter.fields["adapters"]
    if shares and isinstance(names, list):
        said = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
        job.reporter.said("shares", stage=training.planned.stage.name, shares=shares)
        job.reporter.phase("shares", f"{said}: of the adapters, in the mean of layers and {len(rows)} rows")
