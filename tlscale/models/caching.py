"""Keeps a model from filling a key-value cache where nothing will be generated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedConfig


@contextmanager
def without_cache(module: nn.Module) -> Iterator[None]:
    """Forward passes inside keep no keys and values; the model's config is as before afterwards.

    Only then do models tell packed texts apart by their positions, and training needs less memory.
    """
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if isinstance(config, PreTrainedConfig) else None
    before = getattr(config, "use_cache", None)
    if config is None or before is None:
        yield
        return
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before
