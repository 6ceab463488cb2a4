"""Packs a stage's examples, after a proof that its model keeps packed texts apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tlscale.data.arriving import Arriving, Examples
from tlscale.data.examples import Example
from tlscale.data.packing import Packed
from tlscale.errors import PlanError
from tlscale.models.caching import without_cache

PROBED_TOKENS = 16  # of each text: enough for attention to reach across, cheap for any model
TOLERANCE = 0.02  # relative: far above rounding in bfloat16, far below a text that is really seen


def pack(
    module: nn.Module,
    examples: Examples,
    *,
    size: int,
    collate: Callable[..., dict[str, Any]],
    device: torch.device,
) -> Examples:
    """`examples` in rows of at most `size` tokens; of a stream, those of a block together.

    Raises:
        PlanError: the model lets a text see the ones packed before it, so it would learn something else.
    """
    if isinstance(examples, Arriving):
        pack(module, examples.first(), size=size, collate=collate, device=device)
        return examples.mapped(lambda block: Packed(block, size))
    rows = Packed(examples, size)
    if len(rows) < len(examples):
        leak = leakage(module, examples, collate=collate, device=device)
        if leak > TOLERANCE:
            raise PlanError(
                "data.packing: the model does not keep packed texts apart (another text before one changes "
                f"its outputs by {leak:.2g} of their size); set data.packing to false"
            )
    return rows


@torch.no_grad()
def leakage(
    module: nn.Module,
    examples: Sequence[Example],
    *,
    collate: Callable[..., dict[str, Any]],
    device: torch.device,
) -> float:
    """How much a text's logits change when another one is packed before it, relative to their size."""
    was_training = module.training
    module.eval()
    first, second = _short(examples[0]), _short(examples[-1])
    width = len(second.tokens or ())
    (together,) = Packed([first, second], 2 * PROBED_TOKENS)
    logits = []
    with without_cache(module):
        for example in (second, together):
            batch = collate([example], device=device)
            batch.pop("labels")
            logits.append(module(**batch).logits[0, -width:].float())
    module.train(was_training)
    return float((logits[1] - logits[0]).norm() / logits[0].norm())


def _short(example: Example) -> Example:
    return replace(
        example,
        tokens=(example.tokens or [])[:PROBED_TOKENS],
        loss=(example.loss or [])[:PROBED_TOKENS],
    )
