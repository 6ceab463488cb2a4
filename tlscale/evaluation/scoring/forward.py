"""A pass through a causal language model, and the log-probabilities that it was asked for.

The model computes logits at the scored rows alone, where its `forward` takes `logits_to_keep` as a tensor
of positions (nearly all of transformers 5), and the softmax is over those rows alone, in float32.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlscale.evaluation.scoring.stack import Stack
from tlscale.evaluation.scoring.tree import Tokens

ROWS_AT_ONCE = 256  # rows converted to float32 at a time
FULL, SLIDING = "full_attention", "sliding_attention"
# Attention that is limited in ways that the masks built here don't express.
UNKNOWN_LIMITS = ("attention_chunk_size", "window_size", "attention_window", "attention_types")


@dataclass(frozen=True)
class Masking:
    """How this model wants to be told who sees whom.

    `by_kind`: one mask for each kind of layer, in a dictionary. `window`: how many positions back a sliding
    layer sees. `additive`: 0 and the lowest number instead of true and false.
    """

    by_kind: bool
    window: int | None
    additive: bool


def masking(config: Any) -> Masking | None:
    """What the configuration says about attention; None where a tree can't be expressed."""
    text = config.get_text_config(decoder=True)
    implementation = getattr(text, "_attn_implementation", None)
    if implementation not in ("sdpa", "eager"):
        return None
    if any(getattr(text, name, None) for name in UNKNOWN_LIMITS):
        return None
    kinds = set(getattr(text, "layer_types", None) or ())
    if not kinds <= {FULL, SLIDING}:
        return None
    window = getattr(text, "sliding_window", None)
    if kinds and SLIDING not in kinds:
        window = None
    if SLIDING in kinds and window is None:
        return None
    return Masking(bool(kinds), window, implementation == "eager")


@dataclass(frozen=True)
class Answers:
    """For each question of a pass [q]: its target's log-probability, and whether it is the likeliest."""

    logprobs: Tensor
    greedy: Tensor


class Forward:
    """Runs passes of one model on one stack."""

    def __init__(self, module: nn.Module, masks: Masking, capacity: int, device: torch.device) -> None:
        self._module = module
        self._masks = masks
        self._device = device
        self._keeps_rows = keeps_rows(module)
        self.stack = Stack(capacity)

    @torch.inference_mode()
    def run(self, tokens: Tokens) -> Answers:
        """Computes a pass on top of the first `tokens.depth` tokens of the stack, and leaves it there."""
        positions = torch.from_numpy(tokens.positions).to(self._device)
        mask = None
        if not tokens.chain:
            ends = torch.from_numpy(tokens.ends).to(self._device)
            mask = self.mask(
                tree_mask(tokens.depth, ends), key_positions(tokens.depth, positions), positions
            )
        rows = torch.from_numpy(tokens.rows).to(self._device)
        logits = self.logits(
            torch.from_numpy(tokens.ids).to(self._device),
            positions,
            mask,
            rows,
            self.stack.at(tokens.depth),
        )
        asked = torch.from_numpy(tokens.asked).to(self._device)
        targets = torch.from_numpy(tokens.targets).to(self._device)
        return answers(logits, asked, targets)

    def logits(self, ids: Tensor, positions: Tensor, mask: Any, rows: Tensor, stack: Stack) -> Tensor:
        """Logits [r, vocabulary] at `rows` of one packed line of tokens [n]."""
        # Without a question one row is computed all the same: no model takes an empty list of positions.
        kept = rows if len(rows) else rows.new_zeros(1)
        keep = {"logits_to_keep": kept} if self._keeps_rows else {}
        out = self._module(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=mask,
            past_key_values=stack,
            use_cache=True,
            **keep,
        ).logits[0]
        picked: Tensor = out if self._keeps_rows else out[kept]
        return picked[: len(rows)]

    def mask(self, seen: Tensor, keys: Tensor, queries: Tensor) -> Any:
        """The mask for queries [n] over keys [k], both by position, in the form that the model takes.

        `seen` is [n, k]; sliding layers see less of it.
        """
        masks = self._masks
        full = self._dressed(seen)
        if masks.window is None:
            return {FULL: full} if masks.by_kind else full
        near = self._dressed(seen & (keys[None, :] > queries[:, None] - masks.window))
        return {FULL: full, SLIDING: near} if masks.by_kind else near

    def _dressed(self, seen: Tensor) -> Tensor:
        if not self._masks.additive:
            return seen[None, None]
        kind = next(self._module.parameters()).dtype
        kind = kind if kind.is_floating_point else torch.float32
        lowest = torch.finfo(kind).min
        return torch.zeros(seen.shape, dtype=kind, device=seen.device).masked_fill_(~seen, lowest)[
            None, None
        ]


def tree_mask(depth: int, ends: Tensor) -> Tensor:
    """Who sees whom [n, depth + n]: all see the stack, and each its own ancestors and itself."""
    n = len(ends)
    index = torch.arange(n, device=ends.device)
    inside = (index[None, :] <= index[:, None]) & (index[:, None] < ends[None, :])
    return torch.cat([inside.new_ones(n, depth), inside], dim=1)


def key_positions(depth: int, positions: Tensor) -> Tensor:
    """The positions of all keys [depth + n]."""
    return torch.cat([torch.arange(depth, device=positions.device), positions])


def answers(logits: Tensor, asked: Tensor, targets: Tensor) -> Answers:
    """Log-probability of `targets` [q] at rows `asked` [q] of `logits` [r, vocabulary]."""
    if not len(asked):
        return Answers(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    sums, best = [], []
    for part in torch.split(logits, ROWS_AT_ONCE):
        sums.append(part.float().logsumexp(dim=-1))
        best.append(part.argmax(dim=-1))
    picked = logits[asked, targets].float() - torch.cat(sums)[asked]
    return Answers(picked.cpu(), (torch.cat(best)[asked] == targets).cpu())


def keeps_rows(module: nn.Module) -> bool:
    """Whether the model computes logits only where it is told to."""
    inner: Any = module
    if hasattr(module, "get_base_model"):
        inner = inner.get_base_model()
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
