"""Every shipped recipe compiles to a plan; their number is known, so that none is left out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.proof_images import write_images, write_network
from tests.integration import minilm
from tlscale.planning.compile import compile_plan, memory_shortfall
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import Plan
from tlscale.recipe.load import load_recipe, read

ROOT = Path(__file__).parents[2]
PROOF_ROWS = "runs/proof-data/"
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


FEW_SHOT = 500  # the most rows of a class that a recipe asks for


def proof_rows(data: Mapping[str, Any], column: str, folder: Path) -> list[str]:
    """Overrides that name rows made here, for recipes whose own are made from public data sets first."""
    file = folder / "rows.jsonl"
    lines = [json.dumps({column: f"row {i}", "label": f"label {i % 4}"}) for i in range(4 * FEW_SHOT)]
    file.write_text("\n".join(lines))
    named = {}
    for role, value in data.items():
        if isinstance(value, dict):
            parts = value.get("tasks", {})
            named |= {f"{role}.tasks.{name}": part["path"] for name, part in parts.items()}
            named |= {role: value["path"]} if not parts else {}
    return [f"data.{key}.path={file}" for key, path in named.items() if path.startswith(PROOF_ROWS)]


def proof_adapters(folder: Path) -> list[str]:
    """Overrides that name adapters of the right shape, for recipes whose own are trained first."""
    for name in ("one", "other"):
        (folder / name).mkdir()
        config = {"peft_type": "LORA", "r": 8, "target_modules": "all-linear"}
        (folder / name / "adapter_config.json").write_text(json.dumps(config))
        (folder / name / "manifest.json").write_text(json.dumps({"base": str(minilm.folder())}))
    return [f"strategy.adapters=[{folder / 'one'},{folder / 'other'}]"]


def proof_images(data: Mapping[str, Any], folder: Path) -> list[str]:
    """The same for recipes whose rows are arrays of images and whose base is made there too."""
    write_network(folder / "network", 16, (32, 32, 32))
    pixels = np.zeros((300, 16, 16), np.uint8)
    write_images(folder, {"rows": (pixels, np.arange(300, dtype=np.uint8) % 10)})
    found = [f"model.model_name_or_path={folder / 'network'}"]
    for role in ("train", "validation", "test", "unlabelled"):
        if role in data:
            columns = {"image": "rows-images.npz/rows", "label": "rows-labels.npz/rows"}
            place = {"path": str(folder), **{name: columns[name] for name in columns if name in data[role]}}
            found += [f"data.{role}={json.dumps(place)}"]
    return found


def test_their_number() -> None:
    assert len(CONFIGS) == 33


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_compiles(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    if "${TLSCALE_DATA}" in text and not os.environ.get("TLSCALE_DATA"):
        pytest.skip("needs real data: set TLSCALE_DATA")
    overrides = []
    if read(path)["model"]["model_name_or_path"].startswith(("sentence-transformers/", "runs/tapt-")):
        overrides = [f"model.model_name_or_path={minilm.folder()}", "model.revision=null"]
    if path.stem == "pretrain-pico":
        overrides = ["data.train.path=builtin:prose-test.jsonl"]
    if "image-classification" in text and PROOF_ROWS in text:
        overrides += proof_images(read(path)["data"], tmp_path)
    elif PROOF_ROWS in text:
        column = "audio" if read(path)["model"]["task"] == "audio-classification" else "text"
        overrides += proof_adapters(tmp_path) if "kind: fusion" in text else []
        overrides += proof_rows(read(path)["data"], column, tmp_path)
    recipe = load_recipe(path, overrides, environment=os.environ)
    assert recipe.name == path.stem
    plan = compile_plan(recipe, offline=True)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.fingerprint == fingerprint(plan)
    assert memory_shortfall(plan) == 0
    for planned in plan.stages:
        assert 0 < planned.trainable <= planned.total
        assert {d.name for d in planned.decisions} >= {
            t.name for t in plan.facts.tensors if not t.name.startswith("head.")
        }
    assert f"configs/{path.relative_to(ROOT / 'configs')}" in text, "the header names the command"
