"""Answers on disk as they come, so that a killed evaluation goes on where it stopped.

One append-only log for each process, in a folder, named by a digest of the questions and of the model: a
log of other questions, or of other weights, is simply not found. Whatever number of processes wrote the
logs, all of them are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import torch
from torch import nn

from tlscale.evaluation.scoring.encode import Path
from tlscale.runs.record import append_line, read_lines, write_lines

SAMPLED = 16  # values of every tensor that go into a model's digest as they are
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Journal:
    """The logs of one set of questions in `folder`; this process appends to that of its `rank`."""

    folder: File
    digest: str
    rank: int

    @property
    def _mine(self) -> File:
        return self.folder / f"{self.digest}-{self.rank}.jsonl"

    def read(self) -> list[dict[str, Any]]:
        """All rows of all processes; a line that a kill cut short is dropped, and cleared from the log."""
        rows = []
        for file in sorted(self.folder.glob(f"{self.digest}-*.jsonl")):
            found = list(read_lines(file))
            rows += found
            if file == self._mine and not file.read_bytes().endswith(b"\n"):
                write_lines(file, found)
        return rows

    def write(self, row: dict[str, Any]) -> None:
        """Adds one answer."""
        append_line(self._mine, row)


def digest_of(module: nn.Module, paths: Iterable[Path], *settings: object) -> str:
    """16 hex digits that change with the questions, the settings, and any weight.

    Of each tensor its name, shape, first values and the sum of its bytes' words are taken: one reading.
    """
    sha = hashlib.sha256(repr(settings).encode())
    for path in paths:
        for part in (path.inputs, path.targets):
            sha.update(len(part).to_bytes(8, "big"))
            sha.update(part.tobytes())
    for name, tensor in module.state_dict().items():
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(_digest(tensor))
    return sha.hexdigest()[:16]


def _digest(tensor: Any) -> bytes:
    if not isinstance(tensor, torch.Tensor) or not tensor.numel():
        return b""
    flat = tensor.detach().reshape(-1)
    words = flat.view(WORDS[flat.element_size()]) if flat.element_size() in WORDS else flat
    few = flat[:SAMPLED].to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    return few + str(int(words.sum(dtype=torch.int64))).encode()


def merged(rows: Sequence[dict[str, Any]], key: str) -> dict[int, dict[str, Any]]:
    """Rows by their number under `key`; of two with the same number, the last."""
    return {int(row[key]): row for row in rows if key in row}
