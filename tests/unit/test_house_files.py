"""What is shipped holds no machine's paths, no unknown hosts, and is counted."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
KINDS = {".cfg", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}
SKIPPED = (".ci/env/", "build/", "dist/", "runs/", "tlscale.egg-info/")
# Licence texts and the vocabulary name hosts as they were written, hostile artifacts what is never asked.
QUOTED = {
    "LICENSE",
    "tests/hub/hostile.py",
    "tlscale/assets/PYTHON-LICENSE.txt",
    "tlscale/assets/pico/tokenizer.json",
}
HOSTS = {
    "arxiv.org",
    "creativecommons.org",
    "docs.python.org",
    "example.com",
    "github.com",
    "huggingface.co",
    "json-schema.org",
    "127.0.0.1",
    "localhost",
}
CONFIGS = {
    "banking77-features",
    "banking77-features-10shot",
    "banking77-lora",
    "banking77-zeroshot",
    "chat-qlora",
    "code-tasks",
    "dolly-qlora",
    "fashion-features",
    "fashion-partial",
    "pneumonia-features",
    "pneumonia-partial",
    "pretrain-pico",
    "proofs/amazon",
    "proofs/banking77-ladder",
    "proofs/clinc-first",
    "proofs/digits",
    "proofs/digits-adda",
    "proofs/four-tasks",
    "proofs/fusion-reviews",
    "proofs/label-shift",
    "proofs/pet-reviews",
    "proofs/setfit-news",
    "proofs/shakespeare-forgetting",
    "proofs/shakespeare-pretraining",
    "proofs/source-ranking",
    "proofs/surgical",
    "proofs/tapt-reviews",
    "proofs/ulmfit-reviews",
    "quickstart",
    "quickstart-two-processes",
    "shakespeare-full",
    "shakespeare-lora",
    "spoken-digits",
}


def shipped() -> list[Path]:
    found = []
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        hidden = any(part.startswith(".") and part not in {".ci", ".gitignore"} for part in name.split("/"))
        skipped = name.startswith(SKIPPED) or "__pycache__" in name
        if path.is_file() and not hidden and not skipped and path.suffix in KINDS and name not in QUOTED:
            found.append(path)
    return found


FILES = shipped()


def test_the_list_of_shipped_files_is_not_empty() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"README.md", "pyproject.toml", ".ci/run", "tlscale/runs/layout.py"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_paths_of_a_machine_and_no_unknown_hosts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    home = re.search(r"(?<![\w.{])/(?:home|root|Users|work)/[\w.-]+", text)
    assert home is None or path == Path(__file__), f"a path of somebody's machine: {home and home.group()}"
    hosts = {urlsplit(address).hostname or "" for address in re.findall(r"https?://[\w.:-]+", text)}
    assert not hosts - HOSTS, "hosts that HOSTS doesn't allow"


def test_the_configs_are_listed_and_counted() -> None:
    found = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    found |= {f"proofs/{path.stem}" for path in (ROOT / "configs" / "proofs").iterdir()}
    assert found == CONFIGS, "list every recipe of configs/ in CONFIGS"
    assert len(CONFIGS) == len(list((ROOT / "configs").rglob("*.yaml")))


def test_an_installed_tlscale_has_every_file_of_launch() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = [p for listed in table["tool"]["setuptools"]["data-files"].values() for p in listed]
    packed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert packed == {path for path in (ROOT / "launch").rglob("*") if path.is_file()}
