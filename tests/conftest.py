"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets, from TLSCALE_DATA; the test is skipped without it."""
    given = os.environ.get("TLSCALE_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("needs real data: set TLSCALE_DATA to the folder that holds it")
    return Path(given)
