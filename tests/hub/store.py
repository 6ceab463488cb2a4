"""What the loopback Hub keeps, on disk: repositories, commits, branches and file contents."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One file of a commit: its git oid, its size, and its sha256 where it is stored by LFS."""

    oid: str
    size: int
    lfs: str | None = None


@dataclass(frozen=True)
class Commit:
    """A snapshot of a repository."""

    oid: str
    parent: str | None
    title: str
    files: dict[str, Entry]


@dataclass
class Repository:
    """The branches and commits of one model."""

    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def commit_at(self, revision: str) -> Commit | None:
        """The commit that a branch or a commit's own name stands for."""
        return self.commits.get(self.branches.get(revision, revision))


class StaleParent(Exception):
    """The branch has moved since the commit that was given as parent."""


def git_oid(data: bytes) -> str:
    """The name that git gives to a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What stands for a large file in git, as far as its name goes."""
    return f"oid sha256:{sha256}\nsize {size}\n".encode()


class Store:
    """Everything the server knows, kept below `root`; safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        (root / "objects").mkdir(parents=True, exist_ok=True)

    def create(self, name: str, *, private: bool) -> bool:
        """Makes a repository with its first commit; False if it is there already."""
        with self.lock:
            if name in self.repositories:
                return False
            self.repositories[name] = Repository(name, private)
            attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
            self.commit(name, "main", "initial commit", {".gitattributes": attributes}, {}, [], None)
            return True

    def object(self, name: str) -> Path:
        """Where the bytes of a git oid or sha256 lie."""
        return self.root / "objects" / name

    def commit(
        self,
        name: str,
        branch: str,
        title: str,
        files: dict[str, bytes],
        lfs: dict[str, tuple[str, int]],
        deleted: list[str],
        parent: str | None,
    ) -> Commit:
        """One commit on top of a branch."""
        with self.lock:
            repository = self.repositories[name]
            head = repository.branches.get(branch)
            if parent is not None and parent != head:
                raise StaleParent
            before = {} if head is None else dict(repository.commits[head].files)
            for path in deleted:
                before.pop(path, None)
            for path, data in files.items():
                self.object(git_oid(data)).write_bytes(data)
                before[path] = Entry(git_oid(data), len(data))
            for path, (sha256, size) in lfs.items():
                before[path] = Entry(git_oid(pointer(sha256, size)), size, sha256)
            content = json.dumps([title, head, {k: asdict(v) for k, v in before.items()}], sort_keys=True)
            seal = f"{len(repository.commits)}{content}".encode()
            made = Commit(hashlib.sha1(seal, usedforsecurity=False).hexdigest(), head, title, before)
            repository.commits[made.oid] = made
            repository.branches[branch] = made.oid
            self._save(repository)
            return made

    def read(self, entry: Entry) -> bytes:
        """The bytes of a file."""
        return self.object(entry.lfs or entry.oid).read_bytes()

    def log(self, name: str, branch: str = "main") -> list[str]:
        """Titles of the commits of a branch, oldest first."""
        repository, found = self.repositories[name], []
        at = repository.branches.get(branch)
        while at is not None:
            made = repository.commits[at]
            found.append(made.title)
            at = made.parent
        return found[::-1]

    def _save(self, repository: Repository) -> None:
        file = self.root / f"{repository.name.replace('/', '--')}.json"
        state: dict[str, Any] = asdict(repository)
        file.write_text(json.dumps(state, indent=1))
