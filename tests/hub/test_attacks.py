"""A sample of the hostile artifacts under the audit hook; `make attacks` loads all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.hub import attacks
from tests.hub.conftest import Site

EVERY = 8
DEED = """
import contextlib, pickle, socket, subprocess
open({trap!r}, "w").close()
subprocess.run(["true"])
with contextlib.suppress(OSError), socket.socket() as made:
    made.connect(("127.0.0.1", 9))
pickle.loads(b"cos\\nsystem\\n.")
"""


def test_nothing_hostile_does_anything(site: Site, tmp_path: Path) -> None:
    good = {path.name: path.read_bytes() for path in site.published.iterdir() if path.is_file()}
    env = {**site.env, "HF_HOME": str(tmp_path / "home")}
    done = attacks.campaign(site.hub, tmp_path, env, good, every=EVERY)
    assert len(done) > 5
    assert all(one.good for one in done), attacks.table(done)


def test_the_hook_sees_what_it_should(site: Site, tmp_path: Path) -> None:
    hooks, root, trap = tmp_path / "hooks", tmp_path / "inside", tmp_path / "trap"
    hooks.mkdir()
    root.mkdir()
    (hooks / "sitecustomize.py").write_text(attacks.HOOK)
    log = root / "audit.log"
    env = {**site.env, "PYTHONPATH": str(hooks), "AUDIT_LOG": str(log)}
    subprocess.run([sys.executable, "-c", DEED.format(trap=str(trap))], env=env, check=True)
    place = attacks.Place(site.hub, root, env, trap)
    seen = {line.partition("\t")[0] for line in log.read_text().splitlines() if not place.planned(line)}
    assert seen == {"write", "start", "connect", "unpickle"}
