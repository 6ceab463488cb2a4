"""Run on every machine of a job before it starts: is it fit for the run, and does it reach the others?

python -m tlscale.launching.preflight RUN_DIR --machines=2 --min-free-gb=1

Each machine writes its findings into the run directory; `tlscale.launching.attempt judge` compares them.
What needs torch, GPUs and the sum over all machines, is left to `tlscale.worker.meeting`, in bounded time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tlscale.errors import TlscaleError
from tlscale.planning.compile import read_plan, versions
from tlscale.planning.device import host_memory
from tlscale.planning.types import Plan
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json

MEET_SECONDS = 60
LONGEST_SECONDS = 90


def main(argv: list[str] | None = None) -> int:
    """Examines this machine; the exit code is 0 whatever was found, as long as it could be written."""
    parser = argparse.ArgumentParser(prog="python -m tlscale.launching.preflight", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--machines", type=int, required=True)
    parser.add_argument("--min-free-gb", type=float, required=True)
    arguments = parser.parse_args(argv)
    layout = RunLayout(arguments.run_dir)
    machine = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        plan = read_plan(layout.plan)
        problems = list(alone(plan, layout, arguments.min_free_gb, os.environ))
        gpus = os.environ.get("SLURM_GPUS_ON_NODE", "0") if plan.world.device == "cuda" else "0"
        if gpus != "0":
            problems += asked("gpus", f"--gpus={gpus}")
        meeting = met(arguments.machines, os.environ) if arguments.machines > 1 else []
        found = {"machine": machine, "problems": problems, "meeting": meeting, "versions": versions()}
        write_json(layout.examinations(os.environ["TLSCALE_TRY"]) / f"{machine}.json", found)
    except TlscaleError as error:
        print(f"{machine}: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def alone(
    plan: Plan, layout: RunLayout, min_free_gb: float, environment: Mapping[str, str]
) -> Iterator[str]:
    """What is wrong with this machine by itself: disk, memory, names."""
    for folder in {str(layout.root), environment.get("TLSCALE_SCRATCH") or tempfile.gettempdir()}:
        yield from disk(Path(folder), min_free_gb)
    needed = max((sum(item.bytes for item in stage.memory) for stage in plan.stages), default=0)
    present = host_memory()
    if plan.world.device == "cpu" and present is not None and present < needed:
        yield f"has {present / 1e9:.1f} GB of memory, the plan needs {needed / 1e9:.1f}"
    for name in {environment["MASTER_ADDR"], socket.gethostname()}:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            yield f"can't resolve {name}: {error.strerror}"


def disk(folder: Path, min_free_gb: float) -> Iterator[str]:
    """What is wrong with a folder: not writable, or too full."""
    try:
        free = shutil.disk_usage(folder).free / 1e9
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield f"can't write to {folder}: {error.strerror}"
        return
    if free < min_free_gb:
        yield f"{folder} has {free:.2f} GB free, {min_free_gb:g} are asked for"


def met(machines: int, environment: Mapping[str, str]) -> list[str]:
    """What is wrong between the machines, which sum a tensor together."""
    return asked(
        "sum",
        f"--machines={machines}",
        f"--rank={environment.get('SLURM_NODEID', '0')}",
        f"--address={environment['MASTER_ADDR']}",
        f"--port={int(environment['MASTER_PORT']) + 1}",
        f"--seconds={MEET_SECONDS}",
    )


def asked(action: str, *arguments: str) -> list[str]:
    """What `tlscale.worker.meeting` finds, or what is wrong with it."""
    argv = [sys.executable, "-m", "tlscale.worker.meeting", action, *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [f"torch gave no answer ({action}) in {LONGEST_SECONDS} s"]
    if done.returncode:
        return [(done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
