"""Signs of life of one rank: how far it is, told once a second to the watchdog beside it.

The training thread only sets attributes, which costs nothing. A thread writes them down a pipe: it falls
silent when the process is stopped, or when some extension holds the interpreter's lock. That the training
thread itself is stuck shows in a count that no longer rises.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SECONDS = 1.0


class Pulse:
    """How far this process is.

    `guarded` places are those that must be left in time, such as a step; in others, such as loading or
    scoring a model, a process may stay as long as it shows signs of life.
    """

    def __init__(self) -> None:
        self.place, self.guarded, self.count = "starting", False, 0
        self._pipe: int | None = None

    def at(self, place: str, *, guarded: bool = False) -> None:
        """This process has come to `place`; all ranks pass the same places in the same order."""
        changed, self.place, self.guarded = guarded != self.guarded, place, guarded
        self.count += 1
        if changed and self._pipe is not None:
            # at once: whoever freezes within the next second must be held to the right limit
            with suppress(OSError):
                os.write(self._pipe, self.line())

    def on(self) -> None:
        """This process has come further at the same place."""
        self.count += 1

    def line(self) -> bytes:
        """What is told, as one line of JSON."""
        told = {"count": self.count, "place": self.place, "guarded": self.guarded}
        return json.dumps(told).encode() + b"\n"

    @contextmanager
    def told(self, pipe: int) -> Iterator[None]:
        """Tells whoever reads `pipe`, which must not block, once a second."""
        ended, self._pipe = threading.Event(), pipe
        teller = threading.Thread(target=self._tell, args=(pipe, ended), daemon=True, name="pulse")
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()
            self._pipe = None

    def _tell(self, pipe: int, ended: threading.Event) -> None:
        while True:
            try:
                # a reader that is behind only wants the newest
                with suppress(BlockingIOError):
                    os.write(pipe, self.line())
            except OSError:
                return
            if ended.wait(SECONDS):
                return
