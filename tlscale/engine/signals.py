"""Requests to stop: SIGTERM, SIGINT, SIGUSR1, or the file STOP in the run directory.

While training, a signal only sets a flag; the processes agree on it at the end of a step, save and leave
together. Where there is nothing to save, as while a base is loaded or scored, a signal ends the process
at once. A second signal ends it at once anywhere: whatever is being written appears whole or not at all.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tlscale.errors import Stopped

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A launcher passes on what the process got itself; only what comes later is a second request.
SAME_REQUEST_SECONDS = 2.0
LOOK_SECONDS = 1.0


class Stops:
    """Hears requests to stop, from `with stops.heard():` to its end.

    `at_second` is called before a second signal ends the process. A `patient` one doesn't let a second
    signal end it: under a batch system, which repeats its requests and kills whoever is late.
    """

    def __init__(self, at_second: Callable[[str], None] | None = None, *, patient: bool = False) -> None:
        self._patient = patient
        self._file: Path | None = None
        self._at_second = at_second
        self._reason: str | None = None
        self._since = 0.0
        self._deferred = 0
        self._looked = 0.0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Puts the handlers in place; must be entered in the main thread."""
        before = {number: signal.signal(number, self._hear) for number in HEARD}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a request is only noted; it is for the caller to ask for it."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def look_for(self, file: Path) -> None:
        """From here on `file` asks as a signal does, as soon as it exists."""
        self._file = file

    def reason(self) -> str | None:
        """What asked this process to stop, if anything did."""
        if self._reason is None and self._file is not None:
            now = time.monotonic()
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                if self._file.exists():
                    self._reason = f"the file {self._file.name}"
        return self._reason

    def leave_if_asked(self) -> None:
        """Ends what is being done if it was asked for, where nothing needs to be saved.

        Raises:
            Stopped: it was.
        """
        reason = self.reason()
        if reason is not None:
            raise Stopped(reason)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._reason is None:
            self._reason, self._since = name, time.monotonic()
            if not self._deferred:
                raise Stopped(name)
        elif not self._patient and time.monotonic() - self._since >= SAME_REQUEST_SECONDS:
            if self._at_second is not None:
                self._at_second(name)
            os._exit(128 + number)


def ignore() -> None:
    """From here on nothing asks any more: the process is leaving with everything saved."""
    for number in HEARD:
        signal.signal(number, signal.SIG_IGN)
