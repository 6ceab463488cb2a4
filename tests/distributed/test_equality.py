"""One process, two, accumulation and every sharding: the same losses, the same saved result, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.equality import OFFLOADS, SHARDINGS, SHORT, lines, table
from tests.distributed.kit import ADAPTERS

ALONE = len(ADAPTERS) + 3


def test_each_backend_trains_as_one_process_does(tmp_path: Path) -> None:
    found = lines(tmp_path, short=True)
    said = "\n\n".join([table(found), *(line.error for line in found if line.error)])
    print(said)
    assert all(line.good for line in found), said
    assert len(found) == ALONE + len(SHORT), said


@pytest.mark.long
def test_every_backend_trains_as_one_process_does(tmp_path: Path) -> None:
    found = lines(tmp_path)
    said = "\n\n".join([table(found), *(line.error for line in found if line.error)])
    print(said)
    assert all(line.good for line in found), said
    # one process; each sharding with each adapter, and accumulated; pairs on three shardings, hidden tokens
    # on four; offloads
    assert len(found) == ALONE + len(SHARDINGS) * (len(ADAPTERS) + 1) + 3 + 4 + len(OFFLOADS), said
