"""The part of a machine's examination that needs torch: its GPUs, and a sum over all machines.

`tlscale.launching.preflight` starts it; the last line of its output is a JSON list of what is wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import distributed

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
    """What is wrong between the machines: each must reach the first, and all together sum a tensor."""
    try:
        distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{address}:{port}",
            rank=rank,
            world_size=machines,
            timeout=timedelta(seconds=seconds),
        )
        number = torch.tensor(float(rank + 1))
        distributed.all_reduce(number)
        distributed.destroy_process_group()
    except RuntimeError as error:
        # the first machine hears of every failure and can't tell whose it is; those that cause one say so
        said = f"no sum over all machines by way of {address}:{port}: {str(error).splitlines()[0]}"
        return [] if rank == 0 else [said]
    right = machines * (machines + 1) / 2
    return [] if float(number) == right else [f"the sum over all machines is {float(number)}, not {right}"]


if __name__ == "__main__":
    sys.exit(main())
