"""Which device this machine has, and how much memory, without torch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

from tlscale.errors import PlanError

MEMINFO = Path("/proc/meminfo")
# version 2, then version 1, of the kernel's control groups
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
DRIVER = Path("/proc/driver/nvidia/version")
QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
SECONDS = 5


def detect(device: Literal["auto", "cpu", "cuda"]) -> tuple[Literal["cpu", "cuda"], int | None]:
    """The kind of device to plan for, and its memory in bytes where that can be known.

    A plan for `cuda` can be made on a machine that has none; its memory is then unknown.
    """
    if device == "cpu":
        return "cpu", host_memory()
    gpu = gpu_memory()
    if device == "cuda" or gpu is not None:
        return "cuda", gpu
    return "cpu", host_memory()


def gpu_memory() -> int | None:
    """Bytes of the smallest NVIDIA GPU here, `None` where there is none.

    Raises:
        PlanError: the driver is loaded but its tool gives no answer.
    """
    if not DRIVER.exists():
        return None
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS, check=True)
    except FileNotFoundError:
        return None
    except (subprocess.SubprocessError, OSError) as error:
        raise PlanError(
            f"the NVIDIA driver is loaded but nvidia-smi fails ({error}); set hardware.device and "
            "hardware.memory_per_device"
        ) from error
    sizes = [int(line) for line in answer.stdout.split() if line.isdigit()]
    return min(sizes) * 2**20 if sizes else None


def host_memory() -> int | None:
    """Bytes that this process may use: the machine's, or its control group's limit if that is lower."""
    found = [limit for path in LIMITS if (limit := _limit(path)) is not None]
    if MEMINFO.is_file():
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemTotal:"):
                found.append(int(line.split()[1]) * 1024)
    return min(found) if found else None


def _limit(path: Path) -> int | None:
    if not path.is_file():
        return None
    text = path.read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else None
