"""The head of a masked language model at the hidden places alone.

A row has some 15 hidden tokens in 100, and the loss reads no other answer: the head, whose width is the
vocabulary, is spared the rest. These heads answer each place by itself, so the answers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tlscale.models.likelihood import IGNORED
from tlscale.models.names import transformers_model
from tlscale.planning.tasks import PLACEWISE


@contextmanager
def at_labels(module: nn.Module, labels: Tensor | None) -> Iterator[None]:
    """Inside, `module` gives logits [1, N, vocabulary] for the N places that `labels` asks for, in order.

    Models that aren't of a family in `PLACEWISE` give all their logits.

    Args:
        module: Possibly wrapped, for data parallelism or by PEFT.
        labels: [batch, length], each one place after the one that is to say it, -100 for none.
    """
    backbone = None if labels is None or labels.dim() != 2 else _backbone(module)
    if backbone is None or labels is None:
        yield
        return
    rows, places = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)

    def chosen(part: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        hidden: Tensor = output[0]
        kept = hidden[rows, places][None]
        if isinstance(output, tuple):
            return (kept, *output[1:])
        output.last_hidden_state = kept
        return output

    handle = backbone.register_forward_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


def _backbone(module: nn.Module) -> nn.Module | None:
    inner = module
    while isinstance(wrapped := getattr(inner, "module", None), nn.Module):
        inner = wrapped
    model = transformers_model(inner)
    fills = type(model).__name__.endswith("ForMaskedLM")
    if not fills or model.config.model_type not in PLACEWISE:
        return None
    backbone = getattr(model, model.base_model_prefix, None)
    return backbone if isinstance(backbone, nn.Module) else None
