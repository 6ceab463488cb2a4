"""Starts a worker on this machine: one process, or several through `accelerate launch`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.errors import ExitCode, Stopped, TlscaleError

LAST_WORDS = 20
# Threads that wait give their core away: on a machine that is shared, waiting by spinning can make a step
# ten times slower. Tokenizers must not fork threads beside data loading. What the user has set wins.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Command:
    """An argument list and defaults for the environment. Never a shell string."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def worker_command(run_dir: Path, action: str, *extra: str, processes: int = 1) -> Command:
    """The command of a worker on `run_dir`; the recipe decides on the device, not the launcher."""
    worker = ("-m", "tlscale.worker", str(run_dir), "--action", action, *extra)
    if processes == 1:
        return Command((sys.executable, *worker), ENVIRONMENT)
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
    return Command((*launcher, *worker), ENVIRONMENT)


def launch(command: Command, *, quiet: bool, apart: bool = False) -> int:
    """Runs a worker to its end and returns its exit code; requests to stop are passed on and waited for.

    Args:
        command: As `worker_command` gives it.
        quiet: Whether its output is thrown away.
        apart: Whether it must not hear the terminal's Ctrl-C itself; then it can't read from there either.

    Raises:
        KeyboardInterrupt: it was interrupted, and has ended.
        Stopped: another signal asked for an end, and it has ended.
        WorkerFailed: a signal of unknown origin ended it.
    """
    from tlscale.launching.attend import attend, end_with_parent

    environment = {**command.environment, **os.environ}
    output = subprocess.DEVNULL if quiet else None
    # this process has one thread, so that it can call a function between fork and exec
    options: dict[str, Any] = {"preexec_fn": end_with_parent, "process_group": 0 if apart else None}
    with subprocess.Popen(command.argv, env=environment, stdout=output, **options) as process:
        code, asked = attend(process)
    if asked is signal.SIGINT and code:
        raise KeyboardInterrupt
    if asked is not None and code:
        raise Stopped(asked.name)
    if code < 0:
        raise WorkerFailed(killed(code), ExitCode.RUN_FAILED)
    return code


def killed(code: int) -> str:
    """The sentence for a process that a signal ended; `code` is the signal's negative number."""
    reason = ", most often because the machine ran out of memory" if -code == signal.SIGKILL else ""
    return f"the worker was ended by {signal.Signals(-code).name}{reason}"


class WorkerFailed(TlscaleError):
    """A worker that was listened to failed; its message and exit code are passed on."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(code) if code in list(ExitCode) else ExitCode.RUN_FAILED


def lines(command: Command, *, given: str = "") -> Iterator[str]:
    """Runs a worker and gives its output line by line, as it comes; `given` is its whole input.

    Raises:
        WorkerFailed: it ended with another exit code than 0.
    """
    environment = {**os.environ, **command.environment, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as source, tempfile.TemporaryFile("w+") as said:
        source.write(given)
        source.seek(0)
        with subprocess.Popen(
            command.argv, env=environment, stdin=source, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    yield line.rstrip("\n")
            except (KeyboardInterrupt, GeneratorExit):
                process.send_signal(signal.SIGINT)
                raise
        if process.returncode:
            said.seek(0)
            reason = "\n".join(said.read().strip().splitlines()[-LAST_WORDS:])
            ended = killed(process.returncode) if process.returncode < 0 else ""
            raise WorkerFailed(
                reason or ended or f"the worker ended with code {process.returncode}", process.returncode
            )
