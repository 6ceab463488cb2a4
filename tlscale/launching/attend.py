"""Waits for a started worker, and passes requests to stop on to it; nothing is left behind.

An agent such as `accelerate launch` ends its workers in a hurry when it gets a signal, or dies of one it
doesn't know. So signals go to the workers themselves, which save and leave, and the agent ends with them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
LOOK_SECONDS = 0.2
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """Asks the kernel for SIGTERM when the parent dies; to be called in the child."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def attend(process: subprocess.Popen[bytes]) -> tuple[int, signal.Signals | None]:
    """Waits for the end of `process`; gives its code and the signal that this process got meanwhile."""
    waiting: list[signal.Signals] = []
    heard: list[signal.Signals] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(signal.Signals(number))
        waiting.append(signal.Signals(number))

    with _handling(hear):
        while True:
            while waiting and _pass_on(process, waiting[0]):
                waiting.pop(0)
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(LOOK_SECONDS)
                break
    return code, heard[0] if heard else None


@contextmanager
def _handling(hear: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # what was started in the background by a shell ignores Ctrl-C, and goes on doing so
    heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Sends `number` to the workers; whether there were any yet."""
    found = workers(process)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(found)


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    """The worker processes: this one itself, or those that it started as an agent."""
    if not (isinstance(process.args, (list, tuple)) and "accelerate.commands.launch" in process.args):
        return [process.pid]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and b"tlscale.worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
