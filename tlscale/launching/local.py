"""Starts a worker on this machine: one process, or several through `accelerate launch`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """An argument list and what is added to the environment. Never a shell string."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def worker_command(run_dir: Path, action: str, *extra: str, processes: int = 1) -> Command:
    """The command of a worker on `run_dir`; the recipe decides on the device, not the launcher."""
    worker = ("-m", "tlscale.worker", str(run_dir), "--action", action, *extra)
    if processes == 1:
        return Command((sys.executable, *worker), {"TOKENIZERS_PARALLELISM": "false"})
    launcher = (
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        str(processes),
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
        "--multi_gpu",
    )
    return Command((*launcher, *worker), {"TOKENIZERS_PARALLELISM": "false"})


def launch(command: Command, *, quiet: bool) -> int:
    """Runs a worker to its end and returns its exit code; an interrupt is passed on and waited for."""
    environment = {**os.environ, **command.environment}
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command.argv, env=environment, stdout=output) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
