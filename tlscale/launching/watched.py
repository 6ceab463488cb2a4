"""Starts a worker and looks on, so that one whose result is not wanted any more can be stopped early."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tlscale.launching.local import Command

LOOK_SECONDS = 0.5
GRACE_SECONDS = 60.0


def watched(command: Command, unwanted: Callable[[], bool], *, log: Path) -> tuple[int, bool]:
    """Runs a worker to its end, or until `unwanted()`; everything it says goes to the file `log`.

    A worker that is stopped hears an interrupt, so that it leaves its run directory whole.

    Returns:
        Its exit code, and whether it was stopped because it was unwanted.
    """
    environment = {**command.environment, **os.environ}
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as said,
        subprocess.Popen(
            command.argv, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as process,
    ):
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(LOOK_SECONDS), False
                if unwanted():
                    return _stop(process), True
        except BaseException:
            _stop(process)
            raise


def _stop(process: subprocess.Popen[bytes]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(GRACE_SECONDS)
    process.kill()
    return process.wait()
