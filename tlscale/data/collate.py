"""Examples to one padded batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from tlscale.data.types import Example
from tlscale.recipe.types import Task

IGNORED = -100
T = TypeVar("T")


def collate(
    examples: Sequence[Example], *, task: Task, pad_id: int, device: torch.device | None = None
) -> dict[str, Any]:
    """A batch of B >= 1 examples, padded on the right to its longest, T tokens.

    Examples with features: features float32 [B, H], labels int64 [B]. Otherwise by task:
    causal-lm: input_ids, attention_mask, labels int64 [B, T], labels aligned with input_ids (the model
    shifts) and -100 where nothing is learned. masked-lm: the same, but every hidden token's label stands
    one place later, so that for both the outputs at a place are to say the label after it. Packed
    examples have position_ids int64 [B, T] in place of attention_mask: models tell packed texts apart by
    them, padding is one more text that nobody learns. sequence-classification: input_ids, attention_mask
    [B, T], labels [B]. image-classification: pixel_values float32 [B, 3, H, W], labels [B].
    audio-classification: input_values float32 [B, frames, bins], labels [B].
    sentence-embedding: anchor and positive, each with input_ids and attention_mask.
    Examples with weights: weights float32 [B] too.
    """
    assert examples, "a batch needs at least one example"
    batch: dict[str, Any]
    if all(e.features is not None for e in examples):
        batch = {
            "features": torch.stack([_there(e.features, e) for e in examples]),
            "labels": _labels(examples),
        }
    elif task == "image-classification":
        batch = {
            "pixel_values": torch.stack([_there(e.pixels, e) for e in examples]),
            "labels": _labels(examples),
        }
    elif task == "audio-classification":
        batch = {
            "input_values": torch.stack([_there(e.pixels, e) for e in examples]),
            "labels": _labels(examples),
        }
    elif task == "sentence-embedding":
        batch = {
            "anchor": _padded([_there(e.tokens, e) for e in examples], pad_id),
            "positive": _padded([_there(e.pair, e) for e in examples], pad_id),
        }
    else:
        batch = dict(_padded([_there(e.shown or e.tokens, e) for e in examples], pad_id))
        if any(e.segments for e in examples):
            del batch["attention_mask"]
            batch["position_ids"] = _positions(examples)
        if task == "sequence-classification":
            batch["labels"] = _labels(examples)
        else:
            batch["labels"] = _targets(examples, later=task == "masked-lm")
    if all(e.weight is not None for e in examples):
        batch["weights"] = torch.tensor([_there(e.weight, e) for e in examples])
    return _moved(batch, device) if device is not None else batch


def _there(field: T | None, example: Example) -> T:
    assert field is not None, f"{example.where}: prepared for another task"
    return field


def _labels(examples: Sequence[Example]) -> torch.Tensor:
    return torch.tensor([_there(e.label, e) for e in examples])


def _padded(rows: Sequence[list[int]], pad_id: int) -> dict[str, torch.Tensor]:
    width = max(len(row) for row in rows)
    return {
        "input_ids": torch.tensor([row + [pad_id] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


def _targets(examples: Sequence[Example], *, later: bool) -> torch.Tensor:
    """int64 [B, T]: the tokens that are learned, -100 elsewhere; `later` moves them on by a place."""
    rows = [
        [token if learned else IGNORED for token, learned in zip(tokens, loss, strict=True)]
        for tokens, loss in ((_there(e.tokens, e), _there(e.loss, e)) for e in examples)
    ]
    if later:
        rows = [[IGNORED, *row[:-1]] for row in rows]
    width = max(len(row) for row in rows)
    return torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])


def _positions(examples: Sequence[Example]) -> torch.Tensor:
    """int64 [B, T]: from 0 at every packed text, and again over the padding."""
    lengths = [example.segments or (len(_there(example.tokens, example)),) for example in examples]
    width = max(map(sum, lengths))
    return torch.tensor(
        [[at for length in (*row, width - sum(row)) for at in range(length)] for row in lengths]
    )


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: _moved(part, device) if isinstance(part, dict) else part.to(device)
        for name, part in batch.items()
    }
