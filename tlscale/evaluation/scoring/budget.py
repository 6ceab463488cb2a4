"""How many tokens one pass may have: found once for a model on its device, by trying.

A larger pass keeps the arithmetic busier, but its mask and its attention grow with the square of it. The
search doubles the size while that makes a token quicker, and stops before memory runs out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.forward import Forward, Masking
from tlscale.evaluation.scoring.stack import memory_ran_out
from tlscale.evaluation.scoring.tree import branches

# Doubling is gone on with while it saves at least this share of a token's time.
GAIN = 0.05
REPEATS = 2
# The work must be so many times what the search computes; a smaller one takes the usual size.
WORTH = 20
SHORTEST = 8


def usual(device: torch.device) -> int:
    """Tokens of one pass where nothing was tried: the arithmetic is busy, and the mask stays small."""
    return 512 if device.type == "cpu" else 4096


def sizes(device: torch.device) -> tuple[int, ...]:
    """What is tried, each twice the one before."""
    return (256, 512, 1024, 2048) if device.type == "cpu" else (1024, 2048, 4096, 8192, 16384)


def worth(work: int, device: torch.device) -> bool:
    """Whether a search pays for `work` tokens."""
    return work >= WORTH * (REPEATS + 1) * sum(sizes(device))


def search(seconds: Callable[[int], float], tried: Sequence[int]) -> int:
    """The size after which a token gets no quicker.

    Args:
        seconds: Of one pass of so many tokens.
        tried: Sizes, each twice the one before. Where memory runs out, those before it are taken.
    """
    best, rate = tried[0], float("inf")
    for size in tried:
        try:
            now = seconds(size) / size
        except (RuntimeError, MemoryError) as error:
            if not memory_ran_out(error):
                raise
            break
        if now > rate * (1 - GAIN):
            break
        best, rate = size, now
    return best


def timed(module: Any, masks: Masking, device: torch.device, own: int) -> Callable[[int], float]:
    """Seconds of a pass of texts of `own` random tokens each, one token of each scored."""
    words = int(module.config.get_text_config(decoder=True).vocab_size)
    generator = np.random.default_rng(0)
    length = max(SHORTEST, own)

    def seconds(size: int) -> float:
        texts = generator.integers(0, words, (max(1, size // length), min(length, size)), dtype=np.int32)
        paths = [Path(row, row[:1]) for row in texts]
        tokens = branches(list(enumerate(paths)), 0, [0] * len(paths))
        forward = Forward(module, masks, len(tokens.ids), device)
        spent = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            forward.run(tokens)
            spent.append(time.perf_counter() - start)
        return min(spent[1:])

    return seconds
