"""Rows of all processes in one tensor, with gradient: what statistics over a whole batch need."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from tlscale.engine.runtime import Runtime


def gathered(rows: Tensor, runtime: Runtime) -> Tensor:
    """[rows, ...] of every process, one after the other in rank order. Collective.

    Gradients flow back to every process that gave rows. Processes may give different numbers of rows.
    """
    if runtime.world == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(runtime.world)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    most = max(int(count) for count in counts)
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    parts: Any = all_gather(padded)  # type: ignore[no-untyped-call]
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
