"""A masked language model fills in the label's name (Schick and Schuetze 2021, arXiv:2001.07676)."""

from __future__ import annotations

from typing import Any

import torch

from tlscale.errors import UsageError
from tlscale.evaluation.predictors.classes import Batch, ClassPredictor
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.models.other import load_other


def masked(setup: Setup) -> ClassPredictor:
    """The plugin `masked-lm`: the mean log-probability of the label's tokens, each in a mask's place.

    Raises:
        UsageError: the tokenizer has no mask token.
    """
    model, tokenizer = setup.module, setup.processor
    if model is None:
        model, tokenizer = load_other("masked-lm", setup.model, setup.facts, setup.world)
        model.to(setup.device)
    model.eval()
    if tokenizer.mask_token is None:
        raise UsageError(f"{setup.model.model_name_or_path}: its tokenizer has no mask token")
    mask: int = tokenizer.mask_token_id

    def scores(prepared: Prepared) -> Any:
        labels = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in prepared.labels]
        widths = sorted({len(ids) for ids in labels})

        def of(batch: Batch) -> torch.Tensor:
            found = torch.zeros(len(batch), len(labels), device=setup.device)
            for width in widths:
                at_masks = _at_masks(batch, width)
                for column, ids in enumerate(labels):
                    if len(ids) == width:
                        wanted = torch.tensor(ids, device=setup.device).expand(len(batch), width)
                        found[:, column] = at_masks.gather(2, wanted[..., None])[..., 0].mean(dim=1)
            return found.log_softmax(dim=-1)

        return of

    def _at_masks(batch: Batch, width: int) -> torch.Tensor:
        """Log-probabilities [rows, width, vocabulary] in the masks' places, at the end of the prompt."""
        filled = " ".join([tokenizer.mask_token] * width)
        # the text is cut, never the masks behind it
        room = max(1, setup.max_length - width - 8)
        prompts = [f"{_cut(document.query, room)} {filled}." for document in batch]
        inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(setup.device)
        logits = model(**inputs).logits.float()
        places = inputs["input_ids"] == mask
        found: torch.Tensor = logits[places].view(len(batch), width, -1).log_softmax(dim=-1)
        return found

    def _cut(text: str, room: int) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= room else str(tokenizer.decode(ids[-room:]))

    return ClassPredictor("verbalizer of a masked language model", scores, setup.size)
