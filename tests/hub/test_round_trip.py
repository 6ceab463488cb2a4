"""A run goes to the Hub and comes back through the official clients, to the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.hub.conftest import CANARY, PUBLISHED, Site

LOGITS = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.manual_seed(0)
ids = torch.randint(0, 20, (2, 12))
how, name, local, base = sys.argv[1:]
auto = AutoPeftModelForCausalLM.from_pretrained(name).eval()(input_ids=ids).logits
by_hand = AutoModelForCausalLM.from_pretrained("ada/tiny-llama")
by_hand = PeftModel.from_pretrained(by_hand, name).eval()(input_ids=ids).logits
here = AutoModelForCausalLM.from_pretrained(base)
plain = here.eval()(input_ids=ids).logits.clone()
here = PeftModel.from_pretrained(here, local).eval()(input_ids=ids).logits
tokens = AutoTokenizer.from_pretrained("ada/tiny-llama")("the car is red")["input_ids"]
print(json.dumps({"auto": torch.equal(auto, here), "by hand": torch.equal(by_hand, here),
                  "base": torch.equal(plain, here), "tokens": len(tokens)}))
"""


def on_hub(site: Site, name: str = PUBLISHED) -> dict[str, bytes]:
    """The files of the main branch."""
    commit = site.hub.store.repositories[name].commit_at("main")
    assert commit is not None
    return {path: site.hub.store.read(entry) for path, entry in commit.files.items()}


def test_peft_and_transformers_load_it_to_equal_bits(site: Site) -> None:
    command = [site.python, "-c", LOGITS, "", PUBLISHED, str(site.run / "adapter"), str(site.base)]
    command[0] = sys.executable
    done = subprocess.run(command, env=site.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["auto"]
    assert found["by hand"]
    assert not found["base"], "the adapter does nothing"
    assert found["tokens"] > 3


def test_it_is_private_and_just_the_allowed_files(site: Site) -> None:
    assert site.hub.store.repositories[PUBLISHED].private
    assert set(on_hub(site)) - {".gitattributes"} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json",
        "measurements.jsonl", "plan.json", "probe.safetensors", "recipe.yaml", "tlscale.json",
        "verdict.json",
    }  # fmt: skip
    assert site.hub.store.repositories[PUBLISHED].branches.keys() == {"main"}


def test_a_second_push_makes_no_commit(site: Site) -> None:
    before, record = site.hub.store.log(PUBLISHED), (site.run / "published.jsonl").read_bytes()
    done = site.tlscale("push", "runs/colours", "--to", PUBLISHED, "--json")
    assert json.loads(done.stdout)["changed"] is False
    assert site.hub.store.log(PUBLISHED) == before
    assert len(before) == 2
    assert (site.run / "published.jsonl").read_bytes() == record
    assert record.count(b'"ada/published"') == 1


def test_what_is_published_names_the_base_and_no_machine(site: Site) -> None:
    files = on_hub(site)
    config = json.loads(files["adapter_config.json"])
    base = site.hub.store.repositories["ada/tiny-llama"].branches["main"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("ada/tiny-llama", base)
    for name, content in files.items():
        assert str(site.root).encode() not in content, name
        assert CANARY.encode() not in content, name
    recipe = yaml.safe_load(files["recipe.yaml"])
    assert recipe["data"]["train"]["path"] == "train.jsonl"
    assert recipe["model"]["revision"] == base


def test_the_card_has_valid_metadata_and_the_scores(site: Site) -> None:
    text = on_hub(site)["README.md"].decode()
    card = ModelCard(text)
    said: dict[str, Any] = card.data.to_dict()
    assert said["base_model"] == "ada/tiny-llama"
    assert said["library_name"] == "peft"
    assert said["license"] == "apache-2.0"
    measured = [json.loads(line) for line in on_hub(site)["measurements.jsonl"].splitlines()]
    tuned = {row["metric"]: row["value"] for row in measured if row["arm"] == "tuned"}
    assert {one.metric_type: one.metric_value for one in card.data.eval_results} == tuned
    for heading in (
        "How to load it",
        "What was measured",
        "Data",
        "Licence",
        "Cost",
        "Limits",
        "Reproduce it",
    ):
        assert f"\n## {heading}\n" in text
    assert "of 48 test rows" in text, "the overlap of train and test is said"


def test_verify_takes_a_published_adapter_and_anyones(site: Site, tmp_path: Path) -> None:
    done = site.tlscale("verify", f"hub:{PUBLISHED}")
    assert "recorded outputs reproduced to 0.0e+00" in done.stdout
    address = f"{site.hub.address}/{PUBLISHED}"
    assert json.loads(site.tlscale("verify", address, "--json").stdout)["max_difference"] == 0.0
    done = site.tlscale("verify", "https://example.com/ada/colours", code=2)
    assert "not the Hub" in done.stderr


@pytest.mark.parametrize("form", ["--merged", "--gguf-ready"])
def test_a_merged_checkpoint_stands_alone(site: Site, form: str) -> None:
    name = f"lab/colours-{form.strip('-')}"
    site.tlscale("push", "runs/colours", "--to", name, "--public", form)
    files = on_hub(site, name)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert "adapter_config.json" not in files
    assert not site.hub.store.repositories[name].private
    done = site.tlscale("verify", f"hub:{name}")
    assert "checkpoint" in done.stdout
