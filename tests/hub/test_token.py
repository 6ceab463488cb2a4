"""The token is nowhere but in its header: no file, log, argument, message or crash report has it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.hub import kit
from tests.hub.attacks import HOOK
from tests.hub.conftest import CANARY, PUBLISHED, Site

# Every Python process writes down what it starts, and one that is to crash does so with all its variables.
CRASH = (
    HOOK
    + """
def _crash(event, args):
    if event == "open" and str(args[0]).endswith(os.environ.get("CRASH_AT", "//")):
        raise RuntimeError("crashed as the test asked")
sys.addaudithook(_crash)
"""
)


def watched(site: Site, folder: Path) -> dict[str, str]:
    """The environment of processes that are watched, with their log."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CRASH)
    log = str(folder / "audit.log")
    return {**site.env, "PYTHONPATH": f"{folder}{os.pathsep}{kit.ROOT}", "AUDIT_LOG": log}


def test_the_token_is_nowhere_but_in_its_header(site: Site, tmp_path: Path) -> None:
    env = watched(site, tmp_path / "hooks")
    asked = len(site.hub.headers)
    crashing = str(kit.recipe(tmp_path, name="crashing"))

    def told(*arguments: str, code: int | None = 0, where: Path = site.root, **more: str) -> str:
        done = kit.tlscale(*arguments, env={**env, **more}, cwd=where, code=code)
        return done.stdout + done.stderr

    said = {
        "push": told("push", "runs/colours", "--to", "ada/watched"),
        "refused": told("push", "runs/colours", "--to", "elsewhere/watched", code=2),
        "crash": told("run", crashing, code=None, where=tmp_path, CRASH_AT="events.jsonl"),
        "env": told("env"),
    }
    job = ("--dry-run", "--push", "ada/watched", "--time", "10m")
    said["submit"] = told("submit", str(site.root / "recipe.yaml"), *job)
    assert "crashed as the test asked" in said["crash"]
    assert "tlscale push" in said["submit"] or "ada/watched" in said["submit"]
    started = (tmp_path / "hooks" / "audit.log").read_text()
    assert "-m tlscale.worker" in started, "what is started is seen"
    for name, text in {**said, "started": started}.items():
        assert CANARY not in text, name
    for root in (site.root, tmp_path):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert CANARY.encode() not in path.read_bytes(), path
    assert len(site.hub.headers) > asked, "the Hub's record is of all headers but the one that is for it"
    assert not [line for line in site.hub.headers if CANARY in line]
    commit = site.hub.store.repositories[PUBLISHED].commit_at("main")
    assert commit is not None
    assert all(CANARY.encode() not in site.hub.store.read(entry) for entry in commit.files.values())
