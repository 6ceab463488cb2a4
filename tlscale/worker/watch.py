"""Starts the watchdog of this process, and the thread that tells it how far the process is."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tlscale.engine.runtime import Runtime
from tlscale.planning.types import Plan
from tlscale.runs.layout import RunLayout
from tlscale.runs.pulse import Pulse
from tlscale.runs.record import writing


def limit(plan: Plan) -> float:
    """Seconds after which a process counts as hanging: the longest of all stages; 0 switches that off."""
    limits = [planned.stage.safety.hang_timeout for planned in plan.stages]
    limits = limits or [plan.recipe.train.hang_timeout]
    return 0.0 if 0 in limits else max(limits)


@contextmanager
def watched(plan: Plan, layout: RunLayout, runtime: Runtime, pulse: Pulse) -> Iterator[None]:
    """Has this process watched until the end of the block; a watchdog that is killed is missed by nobody.

    Raises:
        WriteError: the file for this process's stack can't be made.
    """
    seconds = limit(plan)
    if not seconds:
        yield
        return
    path = layout.stack(runtime.rank)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = path.open("w", encoding="utf-8")
    argv = [
        sys.executable, "-m", "tlscale.runs.watchdog", str(layout.root.absolute()),
        "--rank", str(runtime.rank), "--pid", str(os.getpid()), "--limit", str(seconds),
    ]  # fmt: skip
    faulthandler.register(signal.SIGUSR2, file=stack, all_threads=True)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    try:
        with pulse.told(process.stdin.fileno()):
            yield
    finally:
        process.stdin.close()
        process.wait()
        faulthandler.unregister(signal.SIGUSR2)
        stack.close()
        if not path.stat().st_size:
            path.unlink()
        layout.pulse(runtime.rank).unlink(missing_ok=True)
        for folder in (path.parent, layout.pulses):
            with suppress(OSError):
                folder.rmdir()  # unless there is something to read in it
