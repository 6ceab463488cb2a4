"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Tests run side by side, and some fork processes that have loaded torch: one thread each, children too.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets, from TLSCALE_DATA; the test is skipped without it."""
    given = os.environ.get("TLSCALE_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("needs real data: set TLSCALE_DATA to the folder that holds it")
    return Path(given)


@pytest.fixture(scope="session", autouse=True)
def _hears_interrupts() -> None:
    """Processes started in the background ignore Ctrl-C, and hand that on; tests of it need the default."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
