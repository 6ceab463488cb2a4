"""Trying again what may go better the next time, and saying how to go on when it does not."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tlscale.errors import TlscaleError

Result = TypeVar("Result")
# Statuses of a server that is busy or unwell; everything else is an answer that stays the same.
PASSING = (408, 425, 429, 500, 502, 503, 504)
# Errors of the client's own that no other try changes.
FINAL = ("HFValidationError", "OfflineModeIsEnabled", "LocalTokenNotFoundError")
# Faults of this machine, which another try won't mend.
HERE = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
TRIES = 5
LONGEST_PAUSE = 60.0


class HubError(TlscaleError):
    """The Hub refuses, fails or can't be reached; the message says at which step and how to go on."""


class MovedError(TlscaleError):
    """The branch is not at the commit that a new one was to follow."""


class NotYetError(OSError):
    """The Hub does not show what it should; another try looks again."""


@dataclass(frozen=True)
class Patience:
    """How often a step is tried, and the first pause in seconds; pauses double."""

    tries: int = TRIES
    pause: float = 1.0


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the Hub's client, or behind its cause, if there was an answer."""
    response = getattr(error, "response", None)
    found = getattr(response, "status_code", None)
    if isinstance(found, int):
        return found
    return None if error.__cause__ is None else status_of(error.__cause__)


def passing(error: Exception) -> bool:
    """Whether the same request may succeed later: a busy server, a broken connection, half an answer."""
    if isinstance(error, TlscaleError) or type(error).__name__ in FINAL:
        return False
    if isinstance(error, OSError) and error.errno in HERE:
        return False
    status = status_of(error)
    return status in PASSING if status is not None else True


def waiting(error: Exception, tried: int, patience: Patience) -> float:
    """Seconds until the next try: what the server asks for, else a doubling pause."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "")
    pause = float(asked) if asked.isdecimal() else patience.pause * 2.0**tried
    return min(pause, LONGEST_PAUSE)


def persistent(
    step: str, action: Callable[[], Result], errors: tuple[type[Exception], ...], patience: Patience
) -> Result:
    """What `action` returns, at the first try that gets through.

    Args:
        errors: What the client may raise; of these, those that won't pass are raised as they are.

    Raises:
        HubError: every try failed.
    """
    for tried in range(patience.tries):
        try:
            return action()
        except errors as error:
            if not passing(error):
                raise
            if tried + 1 == patience.tries:
                raise HubError(
                    f"{step}: the Hub did not get it done in {patience.tries} tries: {short(error)}. "
                    "Nothing is half published; give the same command again, and it goes on from here"
                ) from error
            time.sleep(waiting(error, tried, patience))
    raise AssertionError("a patience without tries")


def short(error: Exception) -> str:
    """An error of the Hub's client as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]
