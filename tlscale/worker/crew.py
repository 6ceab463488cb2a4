"""Helper processes that make numbered parts of something, each part a folder that appears when whole.

They are forked from this process, so that they have all that is needed to make a part. They hear no
signals: the process decides when to stop, and the kernel ends them with it. One that dies costs nothing but
time, since what it was to make is made by this process instead.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from tlscale.errors import TlscaleError

PR_SET_PDEATHSIG = 1
NUMBER = struct.Struct("<q")


@dataclass
class _Helper:
    """One process: where it is told numbers and tells them back, and what it is still to make."""

    pid: int
    orders: int
    answers: int
    waiting: set[int]


class Crew:
    """`count` helpers that call `make(number)`, started when they are first asked; 0 of them make nothing.

    `lost` is how many died so far. To be closed at the end.
    """

    def __init__(self, make: Callable[[int], None], count: int) -> None:
        self._make, self._count, self.lost = make, count, 0
        self._helpers: list[_Helper] = []

    def ask(self, number: int) -> None:
        """Has a helper make `number`, soon; asking again changes nothing."""
        if any(number in helper.waiting for helper in self._helpers):
            return
        self._helpers = self._helpers or [_begun(self._make) for _ in range(self._count)]
        for helper in sorted(self._helpers, key=lambda one: len(one.waiting))[:1]:
            with suppress(OSError):  # it is gone, which `wait` finds out
                os.write(helper.orders, NUMBER.pack(number))
            helper.waiting.add(number)

    def wait(self, number: int) -> None:
        """Returns when no helper is at work on `number`, whatever came of it."""
        while helper := next((one for one in self._helpers if number in one.waiting), None):
            answer = os.read(helper.answers, NUMBER.size)
            if answer:
                helper.waiting.discard(NUMBER.unpack(answer)[0])
            else:
                self._replace(helper)

    def _replace(self, helper: _Helper) -> None:
        self.lost += 1
        _ended(helper)
        self._helpers[self._helpers.index(helper)] = _begun(self._make)

    def close(self) -> None:
        """Ends the helpers at once; parts that are not whole were never there."""
        for helper in self._helpers:
            with suppress(ProcessLookupError):
                os.kill(helper.pid, signal.SIGKILL)
            _ended(helper)
        self._helpers = []

    def pids(self) -> list[int]:
        """The helpers' processes."""
        return [helper.pid for helper in self._helpers]


def _begun(make: Callable[[int], None]) -> _Helper:
    (told, orders), (answers, telling) = os.pipe(), os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            _settle(parent, keep={told, telling})
            _work(make, told, telling)
        finally:
            os._exit(0)
    os.close(told)
    os.close(telling)
    return _Helper(pid, orders, answers, set())


def _ended(helper: _Helper) -> None:
    os.close(helper.orders)
    os.close(helper.answers)
    os.waitpid(helper.pid, 0)


def _settle(parent: int, keep: set[int]) -> None:
    """Makes a fork a helper: it ends with its parent, and holds none of its connections and locks."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    for open_file in list(Path("/proc/self/fd").iterdir()):
        if int(open_file.name) > 2 and int(open_file.name) not in keep:
            with suppress(OSError):
                os.close(int(open_file.name))
    # threads of the parent's pools are not here
    torch.set_num_threads(1)


def _work(make: Callable[[int], None], told: int, telling: int) -> None:
    while order := os.read(told, NUMBER.size):
        with suppress(TlscaleError, OSError):  # whoever needs the part makes it, and meets the error
            make(NUMBER.unpack(order)[0])
        os.write(telling, order)
