"""How many numbers the forward pass keeps for the backward pass, per architecture family.

All counts are elements per token (or patch) and block, derived from what autograd saves in the
transformers implementations with scaled-dot-product attention; `benchmarks/memory.py` holds them
against measurements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tlscale.planning.targets import Module
from tlscale.planning.types import Architecture, Facts

BLOCK = re.compile(r"(?:^|.*\.)(?:layers?|h|blocks?|stages)\.(\d+)\.")
IMAGE_SIDE = 224
SMALLEST_SIDE = 7
# attention under dropout without a fused kernel keeps, per head and pair of tokens: the probabilities,
# the mask and their product
DROPOUT_PAIRS = 3
# width of a dropout mask in elements: as wide as its input on a CPU, a byte on a GPU
CPU_MASK = 1.0
GPU_MASK = 0.25


@dataclass(frozen=True)
class Family:
    """What one block keeps; the fields are multiples of a width per token.

    `always` counts hidden widths (inputs of norms) kept even when the block is frozen; `trained` those
    kept only for gradients of weights (inputs of linear layers, normalized values); `inner` and
    `inner_trained` likewise in widths of the feed-forward layer. `working` counts inner widths of
    gradients alive at once inside the block's backward pass. `dropouts` counts hidden-wide masks.
    """

    always: float
    trained: float
    inner: float
    inner_trained: float
    working: float
    dropouts: int


GATED = Family(always=2, trained=4, inner=3, inner_trained=1, working=3, dropouts=0)
GPT2 = Family(always=2, trained=3, inner=4, inner_trained=1, working=3, dropouts=2)
ENCODER = Family(always=2, trained=2, inner=1, inner_trained=1, working=2, dropouts=2)
VISION = Family(always=2, trained=2, inner=1, inner_trained=1, working=2, dropouts=0)


def family(facts: Facts) -> Family:
    """The family of the architecture, by its layers' names."""
    names = {tensor.name.rpartition(".")[0].rpartition(".")[2] for tensor in facts.tensors}
    if names & {"gate_proj", "gate_up_proj"}:
        return GATED
    if facts.architecture.vocab_size == 0:
        return VISION
    return GPT2 if "c_fc" in names else ENCODER


@cache
def block_of(name: str) -> int | None:
    """The index of the block that a parameter belongs to."""
    match = BLOCK.match(name)
    return int(match[1]) if match else None


def first_block(facts: Facts, trained: frozenset[str], adapted: Sequence[Module], *, whole: bool) -> int:
    """The lowest block that the backward pass reaches; the number of blocks if it reaches none.

    `whole` is for methods whose gradients reach the input, such as virtual tokens.
    """
    if whole:
        return 0
    touched = [*trained, *(module.tensor for module in adapted)]
    lowest = facts.architecture.layers
    for name in touched:
        index = block_of(name)
        if index is not None:
            lowest = min(lowest, index)
        elif re.match(r"(?:embed|wte|wpe|embeddings)", name):
            return 0
    return lowest


def per_block(
    a: Architecture, kind: Family, *, trained: bool, adapted: Sequence[Module], length: int, on_gpu: bool
) -> float:
    """Elements per token that one block keeps.

    Args:
        a: The base's dimensions.
        kind: Its family.
        trained: Whether the block's own weights train.
        adapted: The layers of the block that an adapter wraps.
        length: Tokens per row, for attention that keeps its matrix.
        on_gpu: Where attention under dropout has a fused kernel, which keeps no matrix.
    """
    attention = 2 * a.heads * a.head_dim + 2 * a.kv_heads * a.head_dim
    kept = kind.always * a.hidden_size + attention + kind.inner * a.intermediate_size
    if trained:
        kept += kind.trained * a.hidden_size + kind.inner_trained * a.intermediate_size
    else:
        kept += _adapter_inputs(adapted)
    kept += kind.dropouts * (GPU_MASK if on_gpu else CPU_MASK) * a.hidden_size
    if kind.dropouts and not on_gpu:
        kept += DROPOUT_PAIRS * a.heads * length
    return kept


def _adapter_inputs(adapted: Sequence[Module]) -> float:
    """Inputs that frozen layers wouldn't keep but their adapters do: once for those that share one."""
    kept = 0.0
    shared: set[str] = set()
    for module in adapted:
        own = module.name.rpartition(".")[2]
        if own in ("q_proj", "k_proj", "v_proj", "query", "key", "value", "q_lin", "k_lin", "v_lin"):
            place = "attention"
        elif own in ("gate_proj", "up_proj", "fc1", "lin1"):
            place = "feed-forward"
        else:
            place = module.name
        # the attention's output is kept by the attention itself
        if place in shared or own in ("o_proj", "out_lin"):
            continue
        shared.add(place)
        kept += module.inputs
    return kept


def working(a: Architecture, kind: Family) -> float:
    """Elements per token of gradients alive at once in the backward pass of one block."""
    return kind.working * a.intermediate_size + 2 * a.hidden_size


def convolutions(facts: Facts) -> float:
    """Elements per image that a convolutional network keeps, assuming images of 224 x 224.

    Each convolution's output counts three times: for the normalization, the activation and the next
    convolution. Its side is taken to halve whenever the network first becomes wider by half or more.
    """
    side, widest, kept = IMAGE_SIDE / 2, 0, 0.0
    for tensor in facts.tensors:
        if len(tensor.shape) != 4:
            continue
        channels = tensor.shape[0]
        if widest and channels >= 1.5 * widest and side > SMALLEST_SIDE:
            side /= 2
        widest = max(widest, channels)
        kept += 3 * channels * side * side
    return kept
