"""A trained classification head, such as a run's own."""

from __future__ import annotations

from typing import Any

import torch

from tlscale.data.pixels import decode
from tlscale.errors import UsageError, unknown
from tlscale.evaluation.predictors.classes import Batch, ClassPredictor
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.models.load import load_base, load_processor
from tlscale.sources import Row


def plain(label: str) -> str:
    """A label's name, so that `card_arrival` and `Card arrival` are the same."""
    return " ".join(label.replace("_", " ").casefold().split())


def columns(prepared: Prepared, labels: tuple[str, ...]) -> list[int]:
    """For each label of the task, which of the head's outputs it is.

    Raises:
        UsageError: the head has no such class.
    """
    known = {plain(label): at for at, label in enumerate(labels)}
    for label in prepared.labels:
        if plain(label) not in known:
            raise UsageError(
                f"{prepared.name}: label {label!r}: {unknown(plain(label), known, 'class of the head')}"
            )
    return [known[plain(label)] for label in prepared.labels]


def head(setup: Setup) -> ClassPredictor:
    """The plugin `head`."""
    module = setup.module
    if module is None:
        module = load_base(setup.model, setup.facts, head=None, world=setup.world, seed=setup.seed)
        module.to(setup.device)
    module.eval()
    model: Any = module
    processor = setup.processor or load_processor(setup.model, setup.facts)
    images = setup.model.task == "image-classification"

    def inputs(batch: Batch) -> Any:
        if images:
            pictures = [decode(Row({}, document.where), document.image, None) for document in batch]
            return processor(images=pictures, return_tensors="pt")
        texts = [document.text for document in batch]
        return processor(
            texts, padding=True, truncation=True, max_length=setup.max_length, return_tensors="pt"
        )

    def scores(prepared: Prepared) -> Any:
        chosen = torch.tensor(columns(prepared, setup.facts.labels), device=setup.device)

        def of(batch: Batch) -> torch.Tensor:
            logits: torch.Tensor = model(**inputs(batch).to(setup.device)).logits
            return logits.float().log_softmax(dim=-1)[:, chosen]

        return of

    return ClassPredictor("classification head", scores, setup.size)
