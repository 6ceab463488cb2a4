"""A key-value cache that is a stack: a pass writes above the current depth, and the depth can be set back.

Keys and values lie in one buffer a layer that is allocated once; the model gets views of it, so a shared
prefix is neither copied nor repeated for those that share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from tlscale.errors import TlscaleError


@dataclass
class Place:
    """Where the next pass writes: above `depth`, or at `slots` [n], in which case it sees `seen` places."""

    depth: int = 0
    slots: Tensor | None = None
    seen: int = 0


class StackLayer(CacheLayerMixin):
    """One layer's keys and values [1, heads, capacity, width]."""

    is_sliding = False
    is_croppable = False

    def __init__(self, capacity: int, place: Place) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity, self._place = capacity, place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates the buffer in the shape and precision of the first keys and values.

        With zeros: what a mask hides must be finite all the same.
        """
        shape = (1, key_states.shape[1], self._capacity)
        self.keys = key_states.new_zeros((*shape, key_states.shape[-1]))
        self.values = value_states.new_zeros((*shape, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes where the place says, and returns views of all that the pass sees."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        slots, depth = self._place.slots, self._place.depth
        top = depth + key_states.shape[2] if slots is None else self._place.seen
        if top > self._capacity:
            raise TlscaleError(f"{top} tokens on a stack for {self._capacity}: the plan of passes is wrong")
        if slots is None:
            self.keys[:, :, depth:top] = key_states
            self.values[:, :, depth:top] = value_states
        else:
            self.keys.index_copy_(2, slots, key_states)
            self.values.index_copy_(2, slots, value_states)
        return self.keys[:, :, :top], self.values[:, :, :top]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next pass sees."""
        return self._place.depth + query_length, 0

    def get_seq_length(self) -> int:
        """How many tokens are on the stack."""
        return self._place.depth

    def get_max_length(self) -> int:
        """How many tokens the buffer holds."""
        return self._capacity


class Stack(Cache):
    """The cache of a whole model; layers are made as the model asks for them."""

    def __init__(self, capacity: int) -> None:
        self._place = Place()
        layer: Any = partial(StackLayer, capacity, self._place)
        super().__init__(layer_class_to_replicate=layer)

    def at(self, depth: int) -> Stack:
        """The stack cut to, or left by the last pass at, `depth` tokens; the next pass goes above them."""
        self._place.depth, self._place.slots = depth, None
        return self

    def on(self, slots: Tensor, seen: int) -> Stack:
        """The next pass writes at `slots` [n] and sees the first `seen` places."""
        self._place.slots, self._place.seen = slots, seen
        return self


def memory_ran_out(error: BaseException) -> bool:
    """Whether an exception says that the GPU's or the machine's memory didn't suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said
        or "not enough memory" in said
        or "CUBLAS_STATUS_ALLOC_FAILED" in said
    )
