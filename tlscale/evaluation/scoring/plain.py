"""Scoring without shared prefixes: rows of whole paths, for models that can't take a tree mask.

Also what the tree is checked against. A row is padded at its right end, which a causal model does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.executor import Answered, joined
from tlscale.evaluation.scoring.forward import answers, keeps_rows

Asked = tuple[int, Path, int, int]


@torch.inference_mode()
def score_rows(module: nn.Module, asked: Sequence[Asked], budget: int, device: torch.device) -> Answered:
    """Answers the questions of each (owner, path, first, last) at input positions [first, last).

    Args:
        budget: Tokens of one batch, padding included; a longer path goes alone.
    """
    ordered = sorted(asked, key=lambda entry: -len(entry[1].inputs))
    parts, group = [], list[Asked]()
    for entry in ordered:
        if group and len(group[0][1].inputs) * (len(group) + 1) > budget:
            parts.append(_batch(module, group, device))
            group = []
        group.append(entry)
    if group:
        parts.append(_batch(module, group, device))
    return joined(parts)


def _batch(module: nn.Module, group: Sequence[Asked], device: torch.device) -> Answered:
    longest = len(group[0][1].inputs)
    ids = torch.zeros(len(group), longest, dtype=torch.long)
    for row, (_, path, _, _) in enumerate(group):
        ids[row, : len(path.inputs)] = torch.from_numpy(path.inputs.astype(np.int64))
    earliest = min(first for _, _, first, _ in group)
    out: Any = _logits(module, ids.to(device), longest - earliest)
    found = []
    for row, (owner, path, first, last) in enumerate(group):
        start = len(path.inputs) - len(path.targets)
        targets = torch.from_numpy(path.targets[first - start : last - start].astype(np.int64)).to(device)
        rows: Tensor = out[row, first - earliest : last - earliest]
        got = answers(rows, torch.arange(last - first, device=device), targets)
        owners = np.full(last - first, owner)
        found.append(Answered(owners, got.logprobs.double().numpy(), got.greedy.numpy()))
    return joined(found)


def _logits(module: nn.Module, ids: Tensor, last: int) -> Tensor:
    """Logits of the `last` positions [rows, last, vocabulary]; prompt methods put virtual tokens before."""
    keep = {"logits_to_keep": last} if keeps_rows(module) else {}
    logits: Tensor = module(input_ids=ids, use_cache=False, **keep).logits
    return logits[:, logits.shape[1] - last :]
