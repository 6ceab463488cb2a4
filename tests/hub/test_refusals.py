"""What is refused before anything is uploaded, and before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hub import kit
from tests.hub.conftest import PUBLISHED, Site


def refused(site: Site, *arguments: str, code: int = 2, **env: str) -> str:
    """What a refused push says; nothing may have been made on the Hub by it."""
    before = set(site.hub.store.repositories)
    done = site.tlscale("push", "runs/colours", *arguments, code=code, **env)
    assert set(site.hub.store.repositories) == before
    assert "Traceback" not in done.stderr
    return done.stderr


def test_token_rights_and_name(site: Site) -> None:
    assert "set HF_TOKEN" in refused(site, "--to", "ada/other", HF_TOKEN="")
    assert "does not accept this token" in refused(site, "--to", "ada/other", HF_TOKEN="hf_wrong")
    assert "may only read" in refused(site, "--to", "ada/other", HF_TOKEN="hf_read")
    said = refused(site, "--to", "elsewhere/other")
    assert "may not publish for elsewhere" in said
    assert "ada, lab" in said
    assert "not published by tlscale" in refused(site, "--to", "ada/tiny-llama", "--public")
    assert "is private already" in refused(site, "--to", PUBLISHED, "--public")
    assert "where to?" in refused(site)
    assert "write ORG/NAME" in refused(site, "--to", "colours")


def test_the_licence_chain(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(site.hub.licences, kit.BASE, "cc-by-nc-4.0")
    said = refused(site, "--to", "ada/other", "--license", "mit")
    assert "looser than allowed" in said
    assert "no commercial use" in said
    monkeypatch.setitem(site.hub.licences, kit.BASE, "llama3.1")
    assert "give llama3.1" in refused(site, "--to", "ada/other", "--license", "apache-2.0")
    assert "did you mean apache-2.0?" in refused(site, "--to", "ada/other", "--license", "apache-2")


def test_a_gated_base_names_the_page(site: Site) -> None:
    site.hub.store.repositories[kit.BASE].gated = True
    try:
        said = refused(site, "--to", "ada/other")
        assert f"{site.hub.address}/{kit.BASE}" in said
        assert "accepted" in said
        env = {**site.env, "HF_HOME": str(site.root / "fresh-home")}
        done = kit.tlscale("plan", "recipe.yaml", env=env, cwd=site.root, code=2)
        assert f"accept its terms on {site.hub.address}/{kit.BASE}" in done.stderr
    finally:
        site.hub.store.repositories[kit.BASE].gated = False


def test_a_gated_adapter_names_the_page(site: Site) -> None:
    site.hub.store.repositories[PUBLISHED].gated = True
    try:
        said = site.tlscale("verify", f"hub:{PUBLISHED}", code=2).stderr
    finally:
        site.hub.store.repositories[PUBLISHED].gated = False
    assert f"accepted first, with the account of the token, on {site.hub.address}/{PUBLISHED}" in said


def test_a_bad_verdict_needs_a_reason_that_stands_on_the_card(site: Site, tmp_path: Path) -> None:
    run = site.run
    file = run / "verdict.json"
    before = file.read_text()
    try:
        file.write_text(before.replace('"word": "POSITIVE"', '"word": "INCONCLUSIVE"', 1))
        assert "--despite-verdict" in refused(site, "--to", "ada/doubtful", code=4)
        reason = "a | smoke <test>"
        site.tlscale("push", "runs/colours", "--to", "ada/doubtful", "--despite-verdict", reason)
        card = (run / "publication" / "README.md").read_text()
        assert "for this reason: a \\| smoke &lt;test&gt;" in card
    finally:
        file.write_text(before)


def test_a_changed_result_is_not_published(site: Site) -> None:
    weights = site.run / "adapter" / "adapter_model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + b"\1")
        assert "not the file that was verified" in refused(site, "--to", "ada/other", code=5)
    finally:
        weights.write_bytes(before)


def test_a_base_in_a_folder_must_be_on_the_hub_with_the_same_weights(site: Site) -> None:
    model = {"model_name_or_path": str(site.base), "task": "causal-lm"}
    folder = site.root / "local"
    folder.mkdir()
    file = kit.recipe(folder, name="local", model=model)
    site.tlscale("run", str(file))
    push = ("push", "runs/local", "--to", "ada/local")
    assert "is a folder on this machine" in site.tlscale(*push, code=2).stderr
    site.tlscale(*push, "--base", kit.BASE)
    config = json.loads((site.root / "runs" / "local" / "publication" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == kit.BASE
    other = kit.tiny.llama(site.root / "other-base")
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    kit.upload(site.hub, other, "ada/other-llama")
    said = site.tlscale(*push, "--base", "ada/other-llama", code=2).stderr
    assert "the Hub has other weights there" in said


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_recipe_is_refused_before_training(site: Site, tmp_path: Path, command: str) -> None:
    file = kit.recipe(tmp_path, publish={"to": "elsewhere/colours"}, output_dir=str(tmp_path / "run"))
    done = site.tlscale(command, str(file), code=2)
    assert "may not publish for elsewhere" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_publishes_where_its_recipe_says(site: Site, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"to": "lab/from-recipe", "private": False}
    data = {"data.test.limit=40", "train.max_steps=30"}
    out = str(tmp_path / "run")
    done = site.tlscale("run", str(kit.recipe(tmp_path, publish=asked, output_dir=out)), *data)
    assert f"published {site.hub.address}/lab/from-recipe" in done.stdout
    assert not site.hub.store.repositories["lab/from-recipe"].private
