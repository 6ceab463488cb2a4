"""Batch arithmetic, device memory, and the messages of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tlscale.errors import PlanError
from tlscale.planning import device
from tlscale.planning.batch import choose
from tlscale.planning.types import AskedBatch, Batch


def upto(rows: int) -> Callable[[int], bool]:
    return lambda micro: micro <= rows


@pytest.mark.parametrize(
    ("given", "processes", "fitting", "expected"),
    [
        ({}, 1, 64, (32, 1, 1)),
        ({}, 1, 8, (8, 4, 1)),
        ({}, 4, 64, (8, 1, 4)),
        ({}, 64, 64, (1, 1, 64)),
        ({}, 1, 0, (1, 32, 1)),
        ({"train_batch_size": 24}, 1, 16, (12, 2, 1)),
        ({"train_batch_size": 128}, 2, 5, (4, 16, 2)),
        ({"train_batch_size": 7}, 1, 6, (1, 7, 1)),
        ({"per_device_train_batch_size": 4}, 2, 99, (4, 4, 2)),
        ({"per_device_train_batch_size": 5}, 1, 99, (5, 6, 1)),
        ({"per_device_train_batch_size": 64}, 2, 99, (64, 1, 2)),
        ({"gradient_accumulation_steps": 4}, 2, 99, (4, 4, 2)),
        ({"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5}, 2, 99, (3, 5, 2)),
        ({"train_batch_size": 12, "gradient_accumulation_steps": 3}, 2, 99, (2, 3, 2)),
    ],
)
def test_what_is_left_open_is_settled(
    given: dict[str, int], processes: int, fitting: int, expected: tuple[int, int, int]
) -> None:
    micro, accumulation, world = expected
    chosen = choose(AskedBatch(**given), processes, upto(fitting))
    assert chosen == Batch(micro=micro, accumulation=accumulation, world=world)


@pytest.mark.parametrize(
    ("given", "processes", "message"),
    [
        ({"train_batch_size": 10}, 4, r"10 can't be shared by 4 processes.*8 and 12"),
        ({"train_batch_size": 3}, 4, r"the nearest that can: 4"),
        (
            {"train_batch_size": 12, "per_device_train_batch_size": 5},
            1,
            r"per_device_train_batch_size 5 doesn't divide the 12 rows.*; 4 does",
        ),
        (
            {"train_batch_size": 12, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
            4,
            r"3 x gradient_accumulation_steps 2 x 4 processes = 24 rows, but train_batch_size is 12",
        ),
        (
            {"train_batch_size": 12, "gradient_accumulation_steps": 24},
            1,
            r"gradient_accumulation_steps 24 doesn't divide the 12 rows",
        ),
    ],
)
def test_contradictions_show_the_arithmetic(given: dict[str, int], processes: int, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose(AskedBatch(**given), processes, upto(99))


def test_host_memory_respects_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemFree: 1 kB\nMemTotal:       1000 kB\n")
    monkeypatch.setattr(device, "MEMINFO", meminfo)
    monkeypatch.setattr(device, "LIMITS", (limit,))
    assert device.host_memory() == 1_024_000
    limit.write_text("max\n")
    assert device.host_memory() == 1_024_000
    limit.write_text("4096\n")
    assert device.detect("cpu") == ("cpu", 4096)


def test_gpus_are_asked_for_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DRIVER", tmp_path / "none")
    assert device.gpu_memory() is None
    assert device.detect("cuda") == ("cuda", None)
    assert device.detect("auto")[0] == "cpu"
    monkeypatch.setattr(device, "DRIVER", tmp_path)
    monkeypatch.setattr(device, "QUERY", ("echo", "81559\n40960"))
    assert device.detect("auto") == ("cuda", 40960 * 2**20)
    monkeypatch.setattr(device, "QUERY", ("false",))
    with pytest.raises(PlanError, match=r"nvidia-smi fails.*hardware\.device"):
        device.detect("auto")
