"""One Hub, one base, one finished run and one publication for the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.hub import kit
from tests.hub.server import Hub, serving
from tests.integration.warm import Warm

# Where the site's own run is; a test that publishes does so under a name of its own.
PUBLISHED = "ada/published"
CANARY = "hf_canaryCANARYcanary0123456789"


@dataclass(frozen=True)
class Site:
    """A Hub and a user who works in `root` with its command line; `base` is the folder of the base."""

    hub: Hub
    root: Path
    base: Path
    env: dict[str, str]
    python: str

    def tlscale(
        self, *arguments: str, code: int | None = 0, cwd: Path | None = None, **env: str
    ) -> CompletedProcess[str]:
        """One command of the user; fails on another exit code."""
        merged, where = {**self.env, **env}, cwd or self.root
        return kit.tlscale(*arguments, env=merged, cwd=where, code=code, python=self.python)

    @property
    def run(self) -> Path:
        """The finished run that is on the Hub as PUBLISHED."""
        return self.root / "runs" / "colours"

    @property
    def published(self) -> Path:
        """A folder with what was published of it; pushing the run in another form leaves it alone."""
        return self.root / "published"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    tokens = {CANARY: "write", "hf_write": "write", "hf_read": "read"}
    with serving(root / "hub", tokens=tokens) as hub:
        base = kit.with_base(hub, root / "base")
        env = kit.environment(hub, root / "home", token=CANARY)
        with Warm(root, env) as program:
            made = Site(hub, root, base, env, str(program))
            made.tlscale("run", str(kit.recipe(root)))
            made.tlscale("push", "runs/colours", "--to", PUBLISHED)
            shutil.copytree(made.run / "publication", made.published)
            yield made
