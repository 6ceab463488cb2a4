"""Images and label names in one space, as CLIP has them (Radford et al. 2021, arXiv:2103.00020)."""

from __future__ import annotations

from typing import Any

import torch

from tlscale.data.pixels import decode
from tlscale.errors import DataError
from tlscale.evaluation.predictors.classes import Batch, ClassPredictor, label_texts
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.models.other import load_other
from tlscale.sources import Row


def clip(setup: Setup) -> ClassPredictor:
    """The plugin `clip`."""
    model, processor = load_other("image-text", setup.model, setup.facts, setup.world)
    model.to(setup.device)

    def scores(prepared: Prepared) -> Any:
        assert prepared.task is not None
        texts = label_texts(prepared, prepared.task.template)

        def of(batch: Batch) -> torch.Tensor:
            for document in batch:
                if document.image is None:
                    raise DataError(f"{prepared.name}: {document.where}: no image; clip classifies images")
            pictures = [decode(Row({}, document.where), document.image, None) for document in batch]
            inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
            logits: torch.Tensor = model(**inputs.to(setup.device)).logits_per_image
            return logits.float().log_softmax(dim=-1)

        return of

    return ClassPredictor("image-text similarity", scores, setup.size)
