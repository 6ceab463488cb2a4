"""Processes of one machine hold one copy of the base together, measured by the kernel's account."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.host_memory import BAR, JUDGED, REPLICATED, Asked, copies, write

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("networks")
    count, _ = write(made, Asked())
    assert count > 400e6
    return made


@pytest.mark.parametrize("sharding", JUDGED)
def test_two_processes_hold_one_copy_of_the_base(folder: Path, sharding: str) -> None:
    peak, (whole, own, files) = copies(folder, Asked(), sharding)
    print(
        f"{sharding}: peak {peak.whole / 1e9:.2f} GB, of it the base {whole:.2f} copies "
        f"(own {own:.2f}, of the file {files:.2f})"
    )
    assert whole <= BAR
    # only what trains is anybody's own, unless weights are shared out: then all parts together are one copy
    assert own <= (BAR / 2 if sharding in REPLICATED else BAR)
