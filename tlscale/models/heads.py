"""One vector per row from a backbone, and a head of our own over it.

`Encoder` and `PooledClassifier` hold a transformers backbone (or the PEFT model around one) as `backbone`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils.generic import ModelOutput

from tlscale.models.fusion import Fusion, loaded
from tlscale.models.routing import Composition, Routes
from tlscale.models.taskheads import spans

Pooling = Literal["mean", "cls", "last"]


@dataclass
class Encoded(ModelOutput):
    """What an `Encoder` returns: `embeddings` [batch, features], float32."""

    embeddings: Tensor | None = None


@dataclass
class Classified(ModelOutput):
    """What a `PooledClassifier` returns: `logits` [batch, classes], `features` that its last layer gets."""

    logits: Tensor | None = None
    features: Tensor | None = None


def choose_pooling(
    backbone: nn.Module, asked: Literal["auto", "mean", "cls", "last"], *, images: bool
) -> Pooling:
    """The pooling that `auto` stands for.

    Text: the last token's state for decoders, whose earlier tokens haven't seen the rest; the mean for
    encoders. Images: the mean over a feature map; the class token where the model has one, else the mean.
    """
    if asked != "auto":
        return asked
    if images:
        has_class_token = any(name.endswith("cls_token") for name, _ in backbone.named_parameters())
        return "cls" if has_class_token else "mean"
    return "last" if is_decoder(backbone) else "mean"


def is_decoder(backbone: nn.Module) -> bool:
    """Whether attention is causal, so that only the last token's state has seen the whole text."""
    config: Any = backbone.config
    if getattr(config, "is_decoder", False):
        return True
    return any(getattr(part, "is_causal", False) is True for part in backbone.modules())


def pool(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """One vector per row, float32.

    Args:
        hidden: [batch, extra + length, features]; `extra` leading virtual tokens of prompt methods are
            left out. Or a feature map [batch, features, height, width], which is averaged.
        mask: [batch, length], 1 at tokens that are no padding; `None` where there is no padding.

    Returns:
        [batch, features].
    """
    hidden = hidden.float()
    if hidden.dim() == 4:
        return hidden.mean(dim=(2, 3))
    if mask is None:
        mask = hidden.new_ones(hidden.shape[:2])
    hidden = hidden[:, hidden.shape[1] - mask.shape[1] :]
    weight = mask.to(hidden.dtype)
    if pooling == "mean":
        return (hidden * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    real = (mask != 0).int()
    chosen = (places * real if pooling == "last" else real).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


def pooled(backbone: nn.Module, pooling: Pooling, inputs: dict[str, Any]) -> Tensor:
    """The backbone's pooled states of `inputs`: [batch, features], float32."""
    hidden = backbone(**inputs).last_hidden_state
    return pool(hidden, inputs.get("attention_mask"), pooling)


class Encoder(nn.Module):
    """A backbone that gives one embedding per row."""

    def __init__(self, backbone: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling

    def forward(self, **inputs: Any) -> Encoded:
        return Encoded(embeddings=pooled(self.backbone, self.pooling, inputs))


class PooledHead(nn.Module):
    """A linear layer, or one hidden layer of `hidden` units with GELU and a linear layer."""

    def __init__(self, features: int, classes: int, hidden: int) -> None:
        super().__init__()
        if hidden:
            self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden or features, classes)
        self.has_hidden = bool(hidden)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.output(self.before(features))
        return logits

    def before(self, features: Tensor) -> Tensor:
        """What the last layer gets: the hidden units, or the features themselves."""
        return functional.gelu(self.hidden(features)) if self.has_hidden else features


class PooledClassifier(nn.Module):
    """A backbone, pooling, and a head of our own.

    With `normalize` each feature vector is scaled to length sqrt(features), so that a head learns at the
    same rate over any backbone.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling, head: PooledHead, *, normalize: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling
        self.normalize = normalize
        self.head = head
        self.routes: Composition | None = None

    def fuse(self, fusion: Fusion, folders: Sequence[Path]) -> nn.Module:
        """Puts the adapters in `folders` around the backbone, and the attention over them into the head."""
        self.backbone = loaded(self.backbone, fusion, folders)
        self.routes, self.head.fusion = fusion, fusion.attention
        return self.backbone

    def features(self, **inputs: Any) -> Tensor:
        """What the head gets: [batch, features], float32."""
        vectors = pooled(self.backbone, self.pooling, inputs)
        if self.normalize:
            vectors = functional.normalize(vectors, dim=-1) * math.sqrt(vectors.shape[-1])
        return vectors

    def forward(
        self, features: Tensor | None = None, tasks: Tensor | None = None, **inputs: Any
    ) -> Classified:
        """Logits from `features` computed before, or from the backbone's own inputs.

        Where tasks have adapters of their own, `tasks` [batch] says which one each row belongs to, and only
        the logits of its classes mean anything. Without it every task answers for every row.
        """
        if isinstance(self.routes, Routes) and tasks is None:
            return self._by_every_task(self.routes, inputs)
        if isinstance(self.routes, Routes) and tasks is not None:
            self.routes.follow(tasks)
        return self._classified(self.features(**inputs) if features is None else features)

    def _by_every_task(self, routes: Routes, inputs: dict[str, Any]) -> Classified:
        rows: Tensor = next(iter(inputs.values()))
        parts = []
        for index, (first, end) in enumerate(spans(routes.sizes)):
            routes.follow(torch.full((len(rows),), index, device=rows.device))
            parts.append(self.head(self.features(**inputs))[:, first:end])
        return Classified(logits=torch.cat(parts, dim=1))

    def _classified(self, vectors: Tensor) -> Classified:
        before = self.head.before(vectors)
        return Classified(logits=self.head.output(before), features=before)


def core(module: nn.Module) -> nn.Module:
    """The transformers model, or the PEFT model around one, inside `module`."""
    return module.backbone if isinstance(module, (Encoder, PooledClassifier)) else module


def with_core(module: nn.Module, replacement: nn.Module) -> nn.Module:
    """`module` with its core replaced."""
    if isinstance(module, (Encoder, PooledClassifier)):
        module.backbone = replacement
        return module
    return replacement


def without_pooler(backbone: nn.Module) -> nn.Module:
    """`backbone` without a pooling layer that has parameters.

    Our own pooling never calls it: they could neither move nor be told from random ones.
    """
    pooler = getattr(backbone, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        backbone.register_module("pooler", None)
    return backbone
