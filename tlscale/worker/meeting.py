"""The part of a machine's examination that needs torch: its GPUs, and a sum over all machines.

`tlscale.launching.preflight` starts it; the last line of its output is a JSON list of what is wrong.
By hand, on each machine with its own rank, it tells why machines don't come together:

python -m tlscale.worker.meeting sum --machines 2 --rank 0 --address 10.0.0.1 --port 29500 --seconds 60
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from tlscale.engine import meeting
from tlscale.errors import TlscaleError
from tlscale.planning.compile import versions

MATRIX = 1024
GPU_ERRORS = (
    "nvidia-smi",
    "--query-gpu=ecc.errors.uncorrected.volatile.total",
    "--format=csv,noheader,nounits",
)


def main(argv: list[str] | None = None) -> int:
    """Prints what is wrong; the exit code is 0 whatever was found."""
    parser = argparse.ArgumentParser(prog="python -m tlscale.worker.meeting", description=__doc__)
    parser.add_argument("action", choices=("gpus", "sum"))
    for name in ("machines", "gpus", "rank", "port", "seconds"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--address", default="")
    asked = parser.parse_args(argv)
    if asked.action == "gpus":
        problems = list(gpus(asked.gpus))
    else:
        problems = together(asked.machines, asked.rank, asked.address, asked.port, asked.seconds)
    print(json.dumps(problems))
    return 0


def gpus(wanted: int) -> Iterator[str]:
    """What is wrong with the GPUs: too few, memory errors, or a product that comes out wrong."""
    seen = torch.cuda.device_count()
    if seen < wanted:
        yield f"{seen} of {wanted} GPUs are visible"
    try:
        answer = subprocess.run(GPU_ERRORS, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield f"nvidia-smi fails: {error}"
        return
    for index, count in enumerate(answer.split("\n")):
        if count.strip().isdigit() and int(count):
            yield f"GPU {index} has {count.strip()} uncorrected memory errors"
    for index in range(seen):
        try:
            ones = torch.ones(MATRIX, MATRIX, device=f"cuda:{index}")
            right = bool(((ones @ ones) == MATRIX).all())
        except RuntimeError as error:
            yield f"GPU {index}: {str(error).splitlines()[0]}"
        else:
            if not right:
                yield f"GPU {index} computes wrongly"


def together(machines: int, rank: int, address: str, port: int, seconds: int) -> list[str]:
    """What is wrong between the machines: each must reach the first, and all together sum a tensor.

    A machine that can't reach the first says so; those that only waited for it in vain have nothing to say
    of themselves. What all hear, who is missing or which packages differ, goes to stderr.
    """
    place, limit = f"{address}:{port}", timedelta(seconds=seconds)
    reason = meeting.unreachable(address, port, seconds) if rank else None
    if reason:
        return [reason]
    try:
        store: Any = distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, machines, is_master=rank == 0, timeout=limit, wait_for_workers=False
        )
    except RuntimeError as error:
        did = "can't listen at" if rank == 0 else "can't reach"
        return [f"{did} {place}: {_first_line(error)}"]
    try:
        meeting.meet(
            store, rank=rank, world=machines, machines=machines, versions=versions(), seconds=seconds
        )
    except TlscaleError as error:
        print(error, file=sys.stderr)
        return []
    try:
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=machines, timeout=limit)
        number = torch.tensor(float(rank + 1))
        distributed.all_reduce(number)
        distributed.barrier()
        distributed.destroy_process_group()
    except RuntimeError as error:
        # the first machine hears of every failure and can't tell whose it is; those that cause one say so
        said = (
            f"no sum over all machines by way of {place}: {_first_line(error)}; if a machine has several "
            "networks, name the one to use in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
        )
        return [] if rank == 0 else [said]
    right = machines * (machines + 1) / 2
    return [] if float(number) == right else [f"the sum over all machines is {float(number)}, not {right}"]


def _first_line(error: RuntimeError) -> str:
    return str(error).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
