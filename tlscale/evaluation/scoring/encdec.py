"""Encoder-decoder models: a context goes through the encoder once for all its continuations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.executor import Answered, joined
from tlscale.evaluation.scoring.forward import answers


class EncoderDecoderExecutor:
    """Passes over batches of contexts of like length; see `Executor`. No pass needs another."""

    def __init__(self, module: Any, paths: Sequence[Path], *, budget: int, device: torch.device) -> None:
        self._module, self._paths, self._budget, self._device = module, paths, budget, device
        askers = defaultdict(list)
        for owner, path in enumerate(paths):
            askers[path.inputs.tobytes()].append(owner)
        groups = sorted(askers.values(), key=lambda owners: (-len(paths[owners[0]].inputs), owners[0]))
        self._passes: list[list[list[int]]] = [[]]
        for owners in groups:
            now = self._passes[-1]
            if now and len(paths[now[0][0]].inputs) * (len(now) + 1) > budget:
                self._passes.append([])
            self._passes[-1].append(owners)
        self._passes = [p for p in self._passes if p]
        self.costs = [self._cost(step) for step in self._passes]

    def _cost(self, step: list[list[int]]) -> int:
        return sum(
            len(self._paths[owners[0]].inputs) + sum(len(self._paths[o].targets) for o in owners)
            for owners in step
        )

    def needed(self, wanted: set[int]) -> list[int]:
        """The wanted passes alone."""
        return sorted(wanted)

    @torch.inference_mode()
    def run(self, index: int) -> Answered:
        """The answers of one batch of contexts."""
        step = self._passes[index]
        inputs = [torch.from_numpy(self._paths[owners[0]].inputs.astype(np.int64)) for owners in step]
        ids = nn.utils.rnn.pad_sequence(inputs, batch_first=True).to(self._device)
        sizes = torch.tensor([len(row) for row in inputs], device=self._device)
        seen = (torch.arange(ids.shape[1], device=self._device)[None] < sizes[:, None]).long()
        states = self._module.get_encoder()(input_ids=ids, attention_mask=seen).last_hidden_state
        rows = [(at, owner) for at, owners in enumerate(step) for owner in owners]
        rows.sort(key=lambda pair: -len(self._paths[pair[1]].targets))
        found = []
        size = max(1, self._budget // ids.shape[1])
        for start in range(0, len(rows), size):
            found.append(self._decoded(rows[start : start + size], states, seen))
        return joined(found)

    def _decoded(self, rows: list[tuple[int, int]], states: Tensor, seen: Tensor) -> Answered:
        targets = [torch.from_numpy(self._paths[owner].targets.astype(np.int64)) for _, owner in rows]
        labels = nn.utils.rnn.pad_sequence(targets, batch_first=True).to(self._device)
        of = torch.tensor([at for at, _ in rows], device=self._device)
        logits = self._module(
            encoder_outputs=BaseModelOutput(last_hidden_state=states[of]),
            attention_mask=seen[of],
            decoder_input_ids=self._module.prepare_decoder_input_ids_from_labels(labels=labels),
            use_cache=False,
        ).logits
        found = []
        for (_, owner), wanted, row in zip(rows, targets, logits, strict=True):
            asked = torch.arange(len(wanted), device=self._device)
            got = answers(row, asked, wanted.to(self._device))
            owners = np.full(len(wanted), owner)
            found.append(Answered(owners, got.logprobs.double().numpy(), got.greedy.numpy()))
        return joined(found)
