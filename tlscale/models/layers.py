"""What every layer of a backbone says of a row: pooled hidden states, from the embeddings to the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlscale.models.heads import Pooling, pool


@torch.no_grad()
def pooled_layers(
    backbone: nn.Module, poolings: Sequence[Pooling], inputs: dict[str, Any]
) -> dict[Pooling, list[Tensor]]:
    """For each pooling one [batch, features] float32 per layer, the last with the backbone's final norm.

    Each vector is scaled to length sqrt(features), as a pooled head gets it by default.
    """
    made: Any = backbone(**inputs, output_hidden_states=True)
    states = (*made.hidden_states[:-1], made.last_hidden_state)
    mask = inputs.get("attention_mask")
    return {pooling: [_scaled(pool(state, mask, pooling)) for state in states] for pooling in poolings}


def _scaled(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1) * math.sqrt(vectors.shape[-1])
