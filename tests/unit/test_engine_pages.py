"""Pages of a weights' file are let go of without a change to what they hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tlscale.engine import pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account is read from /proc")
SIZE = 1 << 22


def resident(tensor: torch.Tensor) -> int:
    """Bytes of the mapping under `tensor` that this process has at hand."""
    at, inside = tensor.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            low, high = (int(part, 16) for part in words[0].split("-"))
            inside = low <= at < high
        elif inside and words[0] == "Rss:":
            return int(words[1]) * 1024
    return 0


@pytest.fixture
def mapped(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Two tensors of one file, read to the last page."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(SIZE // 4).float(), "b": torch.ones(SIZE // 4)}, path)
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in ("a", "b")}
    assert float(found["a"].sum()) > 0
    assert float(found["b"].sum()) == SIZE // 4
    return found


def test_pages_that_were_read_are_let_go_and_can_be_read_again(mapped: dict[str, torch.Tensor]) -> None:
    assert pages.of_a_file(mapped["a"])
    before = resident(mapped["a"])
    assert before >= 2 * SIZE
    freed = pages.let_go([mapped["a"]])
    assert 0.9 * SIZE < freed <= SIZE
    # its neighbour's pages stay
    assert before - resident(mapped["a"]) == freed
    assert torch.equal(mapped["a"], torch.arange(SIZE // 4).float())
    assert torch.equal(mapped["b"], torch.ones(SIZE // 4))


def test_memory_that_is_no_files_is_left_alone() -> None:
    own = torch.arange(SIZE // 4).float()
    assert not pages.of_a_file(own)
    assert pages.let_go([own, own[::2], torch.empty(0)]) == 0
    assert torch.equal(own, torch.arange(SIZE // 4).float())


def test_memory_is_freed_whoever_refers_to_it() -> None:
    own = torch.ones(SIZE)
    view = own[1:].view(-1)
    pages.emptied([view])
    assert own.untyped_storage().nbytes() == 0


FREED = """
from pathlib import Path
import torch
from tlscale.engine import pages

def status():
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

torch.ones(7 << 20)  # from now on the allocator would keep what is as large
pages.give_back_freed()
held = [torch.ones(1 << 20) for _ in range(16)]
before = status()
del held[::2]
print(before - status())
"""


def test_freed_tensors_of_middling_size_go_back_to_the_system() -> None:
    """Every second of 16: what is left over between the others could not be returned from a heap.

    In a process of its own, whose heap has no room from before.
    """
    done = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 24 << 20
