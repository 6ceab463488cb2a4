"""The host's memory of a process on Linux: pages of weights' files, and what the allocator keeps.

Elsewhere nothing here does anything; memory is then held longer, and results are the same.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

MAPS = Path("/proc/self/maps")
SUFFIX = ".safetensors"
# of <sys/mman.h> and <malloc.h>
MADV_DONTNEED = 4
M_MMAP_THRESHOLD = -3
# Freed tensors above this size go back to the system at once.
LARGE = 1 << 20


def let_go(tensors: Sequence[Tensor]) -> int:
    """Unmaps the pages of safetensors files under `tensors`, which stay readable; returns their bytes.

    A file is mapped whole for as long as any tensor of it is in use. Once a process has copied what it
    needs of one, this takes that tensor's pages off its account; whoever reads it again maps them again.
    What was written to such a page is forgotten, and memory that is no file's is left alone.
    """
    if not sys.platform.startswith("linux"):
        return 0
    files, freed = _files() if tensors else [], 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for tensor in tensors:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            continue
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        # pages that a neighbour begins or ends in stay
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last and _inside(tensor, files):
            freed += 0 if advise(first, last - first, MADV_DONTNEED) else last - first
    return freed


def of_a_file(tensor: Tensor) -> bool:
    """Whether `tensor` lies in the pages of a safetensors file; they are one for all processes."""
    return sys.platform.startswith("linux") and tensor.device.type == "cpu" and _inside(tensor, _files())


def give_back_freed() -> None:
    """Has the allocator return large freed tensors to the system at once, from now on.

    Otherwise it keeps those of up to 32 MB, which gathered weights of all sizes leave full of holes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, LARGE)


def emptied(tensors: Iterable[Tensor]) -> None:
    """Frees the memory of `tensors` whoever still refers to them; none of them may be read again."""
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.resizable():
            storage.resize_(0)


def _inside(tensor: Tensor, files: Sequence[tuple[int, int]]) -> bool:
    start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    return start < end and any(low <= start and end <= high for low, high in files)


def _files() -> list[tuple[int, int]]:
    """Where safetensors files are mapped, as [first, last) addresses."""
    found = []
    for line in MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.endswith(SUFFIX):
            low, _, high = line.split()[0].partition("-")
            found.append((int(low, 16), int(high, 16)))
    return found
