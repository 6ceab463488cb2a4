"""A recipe's model is fetched once on a machine with a network, and runs on one without."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hub import kit
from tests.hub.conftest import Site

NOWHERE = "http://127.0.0.1:9"


def test_what_was_fetched_runs_without_the_hub(site: Site, tmp_path: Path) -> None:
    recipe = str(kit.recipe(tmp_path, name="fetched", train={"max_steps": 1}))
    there = {**site.env, "HF_HOME": str(tmp_path / "home")}
    away = {**there, "HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": "1"}
    # programs of their own: the client reads these variables once, when it is imported
    refused = kit.tlscale("prefetch", recipe, env=away, cwd=tmp_path, code=2)
    assert "not in the Hub cache" in refused.stderr
    told = kit.tlscale("prefetch", recipe, "--json", env=there, cwd=tmp_path)
    assert list(json.loads(told.stdout)["fetched"]) == [kit.BASE]
    cached = {file.name for file in (tmp_path / "home").rglob("snapshots/*/*")}
    assert "model.safetensors" in cached
    assert "README.md" not in cached
    kit.tlscale("run", recipe, env=away, cwd=tmp_path)
    assert (tmp_path / "runs" / "fetched" / "DONE").is_file()


def test_what_is_here_already_needs_no_hub(site: Site) -> None:
    recipe = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    said = site.tlscale("prefetch", str(recipe), HF_ENDPOINT=NOWHERE).stdout
    assert "nothing of this recipe comes from the Hub" in said
