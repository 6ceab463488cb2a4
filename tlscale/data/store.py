"""Text examples in flat files that are mapped into memory: made once, shared by all processes of a machine.

A folder has a file for each field that its examples have: the values end to end, and where each example's
part ends. Nothing in it is executed or unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlscale.data.types import Example, LazyExamples

TEXTS = ("where", "text", "reference")
LISTS: dict[str, Any] = {"tokens": np.int32, "loss": np.bool_, "shown": np.int32, "pair": np.int32}
NUMBERS = ("label", "prompt_tokens")
LONE = "surrogatepass"  # rows of JSON may hold halves of characters


def write(folder: Path, examples: Iterable[Example]) -> int:
    """Writes `examples`, all of one task, to the empty `folder`; returns how many there were.

    Only texts are kept, not pixels or features. Memory is needed for one example at a time.
    """
    count = 0
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        ends: dict[str, int] = {}

        def put(name: str, raw: bytes) -> None:
            if name not in files:
                files[name] = stack.enter_context((folder / name).open("wb"))
            files[name].write(raw)

        for example in examples:
            assert example.pixels is None, "only texts are stored"
            parts = {name: getattr(example, name).encode(errors=LONE) for name in TEXTS}
            for name, kind in LISTS.items():
                if (values := getattr(example, name)) is not None:
                    parts[name] = np.asarray(values, dtype=kind).tobytes()
            for name, raw in parts.items():
                ends[name] = ends.get(name, 0) + len(raw)
                put(name, raw)
                put(f"{name}.ends", np.int64(ends[name]).tobytes())
            for name in NUMBERS:
                if (value := getattr(example, name)) is not None:
                    put(name, np.int64(value).tobytes())
            count += 1
    return count


class Stored(LazyExamples):
    """The examples that `write` put into `folder`, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = {file.name: _mapped(file) for file in folder.iterdir()}
        self._size = len(self._numbers("where.ends"))

    def __len__(self) -> int:
        return self._size

    def lengths(self) -> list[int]:
        """The tokens of each example, both texts of a pair together."""
        found = np.zeros(self._size, dtype=np.int64)
        for name in ("tokens", "pair"):
            if f"{name}.ends" in self._files:
                found += np.diff(self._numbers(f"{name}.ends"), prepend=0) // np.dtype(LISTS[name]).itemsize
        return [int(length) for length in found]

    def at(self, number: int) -> Example:
        fields: dict[str, Any] = {
            name: self._part(name, number).tobytes().decode(errors=LONE) for name in TEXTS
        }
        for name, kind in LISTS.items():
            if f"{name}.ends" in self._files:
                fields[name] = self._part(name, number).view(kind).tolist()
        for name in NUMBERS:
            if name in self._files:
                fields[name] = int(self._numbers(name)[number])
        return Example(**fields)

    def _numbers(self, name: str) -> NDArray[Any]:
        return self._files[name].view(np.int64) if name in self._files else np.empty(0, dtype=np.int64)

    def _part(self, name: str, at: int) -> NDArray[Any]:
        ends = self._numbers(f"{name}.ends")
        return self._files[name][int(ends[at - 1]) if at else 0 : int(ends[at])]


def _mapped(file: Path) -> NDArray[Any]:
    if file.stat().st_size == 0:
        return np.empty(0, dtype=np.uint8)
    return np.memmap(file, dtype=np.uint8, mode="r")
