"""What a file is on the Hub: its size, its SHA-256, and the name that git gives it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlscale.publish.hub import Stored
from tlscale.runs.record import sha256

# Made by the Hub itself in every repository.
THEIRS = frozenset((".gitattributes",))


@dataclass(frozen=True)
class Digest:
    """Bytes, SHA-256 and git oid of one file."""

    size: int
    sha256: str
    oid: str

    def is_stored(self, stored: Stored | None) -> bool:
        """Whether the Hub has this very file, as large file or in git."""
        if stored is None or stored.size != self.size:
            return False
        return stored.sha256 == self.sha256 if stored.sha256 is not None else stored.oid == self.oid


def digest(path: Path) -> Digest:
    """The digests of one file."""
    size = path.stat().st_size
    made = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            made.update(part)
    return Digest(size, sha256(path), made.hexdigest())


def digests(folder: Path) -> dict[str, Digest]:
    """Every file below `folder` by its path there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in found}


def same(wanted: Mapping[str, Digest], stored: Mapping[str, Stored]) -> bool:
    """Whether a repository holds these files and no others of ours."""
    theirs = {name: file for name, file in stored.items() if name not in THEIRS}
    return wanted.keys() == theirs.keys() and all(d.is_stored(theirs[n]) for n, d in wanted.items())


def seal(wanted: Mapping[str, Digest]) -> str:
    """Sixteen hex digits over names and contents."""
    text = json.dumps({name: one.sha256 for name, one in sorted(wanted.items())})
    return hashlib.sha256(text.encode()).hexdigest()[:16]
