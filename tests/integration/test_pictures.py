"""Pictures prepared as a recipe says: the same in training, in the saved result and in predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    ViTForImageClassification,
)

from tests.integration import tiny
from tests.integration.outside import tlscale
from tlscale.models import artifact
from tlscale.models.load import load_processor
from tlscale.outer.repeat import prepare, runs_of
from tlscale.planning.compile import read_plan
from tlscale.planning.facts import read_facts
from tlscale.planning.image_checks import FIXED_GRID
from tlscale.probes.transferability import leep
from tlscale.recipe.load import check
from tlscale.recipe.types import Model
from tlscale.worker.examples import load_rows
from tlscale.worker.run import ACTIONS

DARK = {"image_mean": [0.2, 0.3, 0.4], "image_std": [0.1, 0.2, 0.5]}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    (made / "vit").mkdir()
    tiny.vit(made / "vit")
    shutil.copytree(made / "vit", made / "bare")
    (made / "bare" / "preprocessor_config.json").unlink()
    tiny.pictures(made / "rows.npz")
    return made


def model_of(base: Path, **given: Any) -> Model:
    written = {"model_name_or_path": str(base), "task": "image-classification", "image_processor": given}
    return Model.model_validate_json(json.dumps(written))


@pytest.mark.parametrize("kind", ["vit", "bare"])
def test_pixels_are_scaled_as_the_recipe_says_and_as_the_saved_processor_does(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    given = {**DARK, **({"size": 8} if kind == "bare" else {})}
    model = model_of(folder / kind, **given)
    processor = load_processor(model, read_facts(model, labels=("0", "1"), offline=True))
    raw = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(raw)
    found = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    expected = (raw / 255 - DARK["image_mean"]) / DARK["image_std"]
    assert np.allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert torch.equal(again(images=picture, return_tensors="pt")["pixel_values"][0], found)


def test_a_result_answers_from_pictures_prepared_as_it_was_trained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw: dict[str, Any] = {
        "version": 1, "name": "dark", "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(folder / "bare"), "task": "image-classification",
                  "image_processor": {"size": 8, **DARK}},
        "data": {"train": {"path": str(folder / "rows.npz"), "image": "images", "label": "labels"},
                 "test_split": 0.25},
        "strategy": {"kind": "features"},
        "train": {"max_steps": 30, "train_batch_size": 16, "learning_rate": 1e-2},
        "hardware": {"device": "cpu"},
    }  # fmt: skip
    (spec,) = runs_of(check(raw, source="dark"), offline=True)
    (tmp_path / "dark.yaml").write_text(json.dumps(raw))
    prepare(spec, tmp_path / "dark.yaml")
    for state in (
        lambda: AcceleratorState._reset_state(reset_partial_state=True),
        PartialState._reset_state,
    ):
        state()
    ACTIONS["train"](spec.plan, spec.layout, False)
    saved = spec.layout.adapter
    said = json.loads((saved / "preprocessor_config.json").read_text())
    assert (said["image_mean"], said["image_std"]) == (DARK["image_mean"], DARK["image_std"])
    bright = np.full((8, 8), 180, dtype=np.uint8)
    Image.fromarray(bright).save(tmp_path / "bright.png")
    capsys.readouterr()
    plan = read_plan(spec.layout.plan)
    request = {"text": str(tmp_path / "bright.png")}
    ACTIONS["predict"](plan, spec.layout, True, json.dumps(request))
    answer = json.loads(capsys.readouterr().out)
    module = artifact.load(saved, model=plan.recipe.model, facts=plan.facts, world=plan.world)
    own = AutoImageProcessor.from_pretrained(saved, backend="pil")
    inputs = own(images=Image.fromarray(bright).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        chances = module(**inputs).logits.softmax(dim=-1)[0]
    assert answer["label"] == plan.facts.labels[int(chances.argmax())], answer
    assert answer["probability"] == pytest.approx(float(chances.max()), abs=1e-5)


RECIPE = """\
version: 1
name: marks
model: {model_name_or_path: ./vit, task: image-classification}
data: {train: {path: rows.npz, image: images, label: labels}, test_split: 0.25}
strategy: {kind: features}
hardware: {device: cpu}
"""


def test_the_probe_compares_ways_to_prepare_and_asks_the_bases_own_head(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "r.yaml").write_text(RECIPE)
    dark = f"model.image_processor={json.dumps(DARK)}"
    done = tlscale(folder, "probe", "r.yaml", dark, "--alignment", "--models", "./vit")
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "runs/marks-probe/probe.json").read_text())
    ways = {way["name"]: way for way in told["alignment"]}
    assert list(ways) == [
        "as the base's own files say", "as the recipe says", "mean and std ImageNet's", "not normalized",
        "not rescaled, 0 to 255",
    ]  # fmt: skip
    (source,) = told["sources"]
    as_asked = ways["as the recipe says"]
    assert as_asked["fields"] == DARK
    assert as_asked["linear"] == source["scores"]["linear"], "the probe itself does as the recipe says"
    change = as_asked["linear_change"]
    own = ways["as the base's own files say"]
    assert change["points"] == pytest.approx(100 * (as_asked["linear"] - own["linear"]))
    assert own["linear_change"] is None
    plan = read_plan(folder / "runs/marks-probe/plan.json")
    assert source["leep"] == pytest.approx(by_hand(folder, plan), abs=1e-6)
    assert "as the recipe says: image_mean 0.2, 0.3, 0.4" in done.stdout


def by_hand(folder: Path, plan: Any) -> float:
    """LEEP of the base's own head on the training rows, by transformers alone."""
    rows = load_rows(plan)["train"][1]
    network = ViTForImageClassification.from_pretrained(folder / "vit").eval()
    chances = []
    for row in rows:
        grey = torch.tensor(row.values["images"]).double() / 255
        scaled = [(grey - m) / s for m, s in zip(DARK["image_mean"], DARK["image_std"], strict=True)]
        with torch.no_grad():
            chances.append(
                network(torch.stack(scaled)[None].float()).logits.double().softmax(-1)[0].numpy()
            )
    return leep(np.stack(chances), np.array([int(row.values["labels"]) for row in rows]))


def test_check_and_plan_say_what_is_unlike_the_base(folder: Path) -> None:
    (folder / "r.yaml").write_text(RECIPE)
    noted = tlscale(folder, "check", "r.yaml", f"model.image_processor={json.dumps(DARK)}")
    assert noted.returncode == 0, noted.stderr
    assert "warning  model      model.image_processor.image_mean: 0.2, 0.3, 0.4, and" in noted.stdout
    refused = tlscale(folder, "check", "r.yaml", "model.model_name_or_path=./bare")
    assert refused.returncode == 2
    assert "has no preprocessor_config.json" in refused.stdout
    planned = tlscale(folder, "plan", "r.yaml", "model.image_processor={size: 12}")
    assert planned.returncode == 2
    assert "a vit takes 8 x 8 alone" in planned.stderr
    text = tlscale(folder, "probe", "r.yaml", "model.task=sequence-classification", "--alignment")
    assert text.returncode == 2
    assert "--alignment" in text.stderr


@pytest.mark.parametrize("kind", [*FIXED_GRID, "beit", "dinov2", "swin", "convnext", "mobilenet_v1"])
def test_which_networks_take_one_size_alone(kind: str) -> None:
    sizes: dict[str, Any] = {"image_size": 32, "patch_size": 4, "num_channels": 3}
    if kind == "swin":
        config = AutoConfig.for_model(
            kind, **sizes, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=2
        )
    elif kind == "convnext":
        config = AutoConfig.for_model(kind, hidden_sizes=[16, 16], depths=[1, 1], num_stages=2)
    elif kind == "mobilenet_v1":
        config = AutoConfig.for_model(kind, image_size=32, depth_multiplier=0.25)
    else:
        config = AutoConfig.for_model(kind, **sizes, **SMALL)
    network = AutoModel.from_config(config).eval()
    larger = torch.zeros(1, 3, 48, 48)
    if kind in FIXED_GRID:
        with pytest.raises((ValueError, RuntimeError)):
            network(pixel_values=larger)
    else:
        assert network(pixel_values=larger).last_hidden_state.shape[0] == 1
