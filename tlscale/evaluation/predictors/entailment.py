"""Zero-shot classification by entailment: does the text imply a sentence with the label in it.

Yin et al. 2019 (arXiv:1909.00161).
"""

from __future__ import annotations

from typing import Any

import torch

from tlscale.errors import UsageError
from tlscale.evaluation.predictors.classes import Batch, ClassPredictor, label_texts
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.models.other import load_other


def entailment(setup: Setup) -> ClassPredictor:
    """The plugin `nli`.

    Raises:
        UsageError: none of the model's classes is called entailment.
    """
    model, tokenizer = load_other("entailment", setup.model, setup.facts, setup.world)
    model.to(setup.device)
    names = {int(at): str(name).casefold() for at, name in model.config.id2label.items()}
    column = next((at for at, name in names.items() if name.startswith("entail")), None)
    if column is None:
        raise UsageError(
            f"{setup.model.model_name_or_path}: no class entailment, but {', '.join(names.values())}; "
            "the predictor nli needs a model trained on entailment"
        )

    def scores(prepared: Prepared) -> Any:
        assert prepared.task is not None
        hypotheses = label_texts(prepared, prepared.task.hypothesis)

        def of(batch: Batch) -> torch.Tensor:
            rows = []
            for document in batch:
                pairs = tokenizer(
                    [document.text] * len(hypotheses),
                    hypotheses,
                    padding=True,
                    truncation="only_first",
                    max_length=setup.max_length,
                    return_tensors="pt",
                ).to(setup.device)
                rows.append(model(**pairs).logits[:, column].float())
            return torch.stack(rows).log_softmax(dim=-1)

        return of

    return ClassPredictor("entailment", scores, setup.size)
