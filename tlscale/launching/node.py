"""Runs on every machine of a cluster job: starts the machine's processes and keeps a log for each rank.

python -m tlscale.launching.node RUN_DIR --machines=2 --processes=8

Signals are left to the ranks, which save and stop at the end of a step; the launcher between would kill
them. When another try of the run has begun elsewhere, this one's processes are ended at once: a machine
that was cut off must not write late. Whatever a launcher leaves behind is ended too.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TextIO

from tlscale.launching.local import ENVIRONMENT
from tlscale.runs.attempts import SUPERSEDED, newest
from tlscale.runs.layout import RunLayout

LOOK_SECONDS = 1.0
TAG = re.compile(r"\[[A-Za-z_]*(\d+)\]:")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
LEFT_TO_THE_RANKS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


def main(argv: list[str] | None = None) -> int:
    """Runs this machine's share to its end; returns the launcher's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tlscale.launching.node", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--machines", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True, help="on each machine")
    arguments = parser.parse_args(argv)
    for one in LEFT_TO_THE_RANKS:
        signal.signal(one, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    rank = int(os.environ.get("SLURM_NODEID", "0"))
    command = machine_command(
        arguments.run_dir,
        machines=arguments.machines,
        processes=arguments.processes,
        rank=rank,
        address=os.environ.get("MASTER_ADDR", "127.0.0.1"),
        port=os.environ.get("MASTER_PORT", "29500"),
        attempt=os.environ.get("TLSCALE_TRY"),
    )
    layout = RunLayout(arguments.run_dir)
    return supervise(command, layout, os.environ, first=rank * arguments.processes)


def machine_command(
    run_dir: Path,
    *,
    machines: int,
    processes: int,
    rank: int,
    address: str,
    port: str,
    attempt: str | None,
) -> tuple[str, ...]:
    """The argument list that starts one machine's processes on a run directory."""
    named = ("--attempt", attempt) if attempt is not None else ()
    worker = ("-m", "tlscale.worker", str(run_dir), "--action", "train", *named)
    if machines * processes == 1:
        return (sys.executable, *worker)
    world = str(machines * processes)
    return (
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no",
        "--dynamo_backend", "no", "--num_machines", str(machines), "--num_processes", world,
        "--machine_rank", str(rank), "--main_process_ip", address, "--main_process_port", port,
        "--rdzv_backend", "static", "--max_restarts", "0", "--tee", "3", *worker,
    )  # fmt: skip


def supervise(
    command: tuple[str, ...], layout: RunLayout, environment: Mapping[str, str], *, first: int
) -> int:
    """Runs `command`; every line goes to the log of its rank, and tagged with the rank to the output.

    Args:
        first: The first rank of this machine.
    """
    # torchrun would pass a TERM on and kill whoever isn't gone in 30 seconds; the ranks get it themselves
    env = {**ENVIRONMENT, **environment, "PET_SIGNALS_TO_HANDLE": "SIGHUP"}
    superseded, over = threading.Event(), threading.Event()
    with (
        ExitStack() as logs,
        subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        reader = threading.Thread(target=_pass_on, args=(process.stdout, layout, logs, first))
        watcher = threading.Thread(target=_watch, args=(layout, over, superseded))
        reader.start()
        watcher.start()
        code = process.wait()
        over.set()
        watcher.join()
        # an orphan may hold the output open, so all must be gone before its end can be waited for
        _end_children()
        reader.join()
    return SUPERSEDED if superseded.is_set() else code if code >= 0 else 128 - code


def _pass_on(lines: IO[str], layout: RunLayout, logs: ExitStack, first: int) -> None:
    opened: dict[int, TextIO] = {}
    for line in lines:
        tag = TAG.match(line)
        rank = first + int(tag[1]) if tag else first
        text = line[tag.end() :] if tag else line
        if rank not in opened:
            file = layout.log(rank)
            file.parent.mkdir(parents=True, exist_ok=True)
            opened[rank] = logs.enter_context(file.open("a", encoding="utf-8", buffering=1))
        opened[rank].write(text)
        print(f"{rank}: {text}", end="", flush=True)


def _watch(layout: RunLayout, over: threading.Event, superseded: threading.Event) -> None:
    """Ends everything that this process started when another try has begun."""
    mine = os.environ.get("TLSCALE_TRY")
    while not over.wait(LOOK_SECONDS):
        with suppress(OSError):  # a file system that is away for a while says nothing about who is newest
            now = newest(layout)
            if mine is not None and now is not None and now != mine:
                print(f"try {now} has begun; try {mine} ends here", file=sys.stderr, flush=True)
                superseded.set()
                _end_children()
                return


def _end_children() -> None:
    """Ends all that descends from this process, orphans included, which the kernel hands to it."""
    while found := descendants(os.getpid()):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they started, and so on, as far as they live."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found = list(children.get(pid, []))
    for one in found:
        found += children.get(one, [])
    return found


if __name__ == "__main__":
    sys.exit(main())
