"""Adapters of several tasks go to the Hub as they are, say how each loads, and come back to equal bits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub import kit
from tests.hub.conftest import Site
from tests.hub.test_round_trip import on_hub
from tests.integration import tiny
from tlscale.errors import VerificationError
from tlscale.publish import composed, intake

LORA = {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear"}
BASE, NAME = "ada/tiny-bert", "ada/several"
# what plain PEFT makes of fixed inputs, by the card's own code and from the run's folder
STATES = """
import json, sys, torch
repository, local, bert, code = sys.argv[1:]
ids = torch.tensor([[2, 5, 6, 7], [2, 8, 9, 3]])
torch.manual_seed(0)
exec(code)
there = model.eval()(input_ids=ids).last_hidden_state
base = AutoModel.from_pretrained(bert)
plain = base.eval()(input_ids=ids).last_hidden_state.clone()
here = PeftModel.from_pretrained(base, local + "/shared", adapter_name="shared")
here.load_adapter(local + "/task_colour", adapter_name="task_colour")
here.base_model.set_adapter(["shared", "task_colour"])
here = here.eval()(input_ids=ids).last_hidden_state
print(json.dumps({"equal": torch.equal(there, here), "base": torch.equal(there, plain)}))
"""


@pytest.fixture(scope="module")
def several(site: Site) -> Path:
    """A run whose two tasks have adapters of their own beside a shared one, published as NAME."""
    bert = tiny.bert(site.root / "bert")
    (bert / "README.md").write_text(kit.CARD)
    kit.upload(site.hub, bert, BASE)
    site.hub.licences[BASE] = "apache-2.0"
    rows = tiny.sentences(site.root / "several.jsonl", 64)
    tasks = {"colour": {"path": str(rows), "text": "text", "label": "label"},
             "kind": {"path": str(rows), "text": "text", "label": "anchor"}}  # fmt: skip
    raw = {
        "version": 1,
        "name": "several",
        "model": {"model_name_or_path": BASE, "task": "sequence-classification"},
        "data": {"train": {"tasks": tasks}, "test": {"tasks": tasks}, "max_length": 32},
        "strategy": {**LORA, "head": "pooled"},
        "train": {"learning_rate": 1e-2, "max_steps": 6, "multi_task": {"adapters": "both"}},
        "hardware": {"device": "cpu"},
    }
    file = site.root / "several.yaml"
    file.write_text(json.dumps(raw))
    site.tlscale("run", str(file))
    done = site.tlscale("push", "runs/several", "--to", NAME, "--merged", "--despite-verdict", "x", code=2)
    assert "nothing to merge, the result is several adapters" in done.stderr
    site.tlscale("push", "runs/several", "--to", NAME, "--despite-verdict", "a test")
    return site.root / "runs" / "several"


def test_the_card_names_tasks_and_adapters_and_its_code_loads_them(site: Site, several: Path) -> None:
    files = on_hub(site, NAME)
    inside = {f"{top}/{name}" for top in ("shared", "task_colour", "task_kind") for name in composed.INSIDE}
    assert {name for name in files if "/" in name} == inside
    for name in inside:
        if name.endswith(".json"):
            assert json.loads(files[name])["base_model_name_or_path"] == BASE
    card = files["README.md"].decode()
    assert re.search(r"`colour` \| \d+ \| `shared`, `task_colour` \| 0 to \d+", card)
    (code,) = (
        part for part in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "load_adapter" in part
    )
    command = [sys.executable, "-W", "ignore", "-c", STATES, NAME, str(several / "adapter"), BASE, code]
    done = subprocess.run(command, env=site.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"equal": True, "base": False}


def test_what_was_published_is_verified_after_download(site: Site, several: Path) -> None:
    done = site.tlscale("verify", f"hub:{NAME}")
    assert "examined  adapters" in done.stdout
    assert "recorded outputs reproduced to 0.0e+00" in done.stdout
    again = json.loads(site.tlscale(
        "push", "runs/several", "--to", NAME, "--despite-verdict", "a test", "--json"
    ).stdout)  # fmt: skip
    assert again["changed"] is False


def changed(manifest: dict[str, Any], **parts: Any) -> str:
    return json.dumps({**manifest, **parts})


def test_a_strange_folder_is_refused(several: Path, tmp_path: Path) -> None:
    good = several / "publication"
    intake.check(intake.known_files(good, tmp_path / "good"))
    manifest = json.loads((good / "manifest.json").read_text())
    cases = {
        "names of folders": {"adapters": ["../shared"]},
        "there are shared, task_colour, task_kind": {"adapters": ["task_colour"], "tasks": [["colour", 2]]},
        "pairs of a name": {"tasks": [["colour", -1], ["kind", 2]]},
        "one for each task": {"attention": {"size": 4}},
        "only several adapters have such": {"kind": "head"},
    }
    for at, (said, parts) in enumerate(cases.items()):
        folder = tmp_path / f"case-{at}"
        shutil.copytree(tmp_path / "good", folder)
        (folder / "manifest.json").write_text(changed(manifest, **parts))
        with pytest.raises(VerificationError, match=said):
            intake.check(folder)
    (tmp_path / "good" / "shared" / "code.py").write_text("raise SystemExit")
    with pytest.raises(VerificationError, match=r"shared/code\.py: does not belong here"):
        intake.check(tmp_path / "good")
    config = tmp_path / "case-0" / "task_kind" / "adapter_config.json"
    (tmp_path / "case-0" / "manifest.json").write_text(json.dumps(manifest))
    config.write_text(json.dumps({**json.loads(config.read_text()), "megatron_config": {"a": 1}}))
    with pytest.raises(VerificationError, match="megatron_config would make PEFT read or import"):
        intake.check(tmp_path / "case-0")
