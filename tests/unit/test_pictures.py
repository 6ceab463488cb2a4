"""Before anything runs: whether pictures are prepared as the base was trained, from its files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.facts import LABELS, llama
from tlscale.planning import image_checks
from tlscale.planning.pictures import changes, side
from tlscale.planning.types import Facts
from tlscale.recipe.pictures import ImageProcessor
from tlscale.recipe.types import Recipe

OWN: dict[str, Any] = {
    "do_resize": True, "size": {"shortest_edge": 224}, "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip
CONFIG: dict[str, Any] = {"model_type": "mobilenet_v1", "image_size": 224, "num_channels": 3}
TIMM = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 224, 224]}
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def base(folder: Path, own: dict[str, Any] | None, config: dict[str, Any]) -> Facts:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    if own is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({**OWN, **own}))
    known = llama(labels=LABELS)
    kind = {"model_type": {**CONFIG, **config}["model_type"], "vocab_size": 0}
    return known.model_copy(
        update={"folder": str(folder), "architecture": known.architecture.model_copy(update=kind)}
    )


def recipe(given: dict[str, Any] | None, **model: Any) -> Recipe:
    written = {"model_name_or_path": "tiny", "task": "image-classification", **model}
    if given is not None:
        written["image_processor"] = given
    return Recipe.model_validate_json(
        json.dumps({"version": 1, "name": "t", "model": written, "strategy": {"kind": "full"}})
    )


VIT = {"model_type": "vit"}
PLAIN = {"do_center_crop": False, "size": {"height": 224, "width": 224}}
NOTED: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any] | None, str]] = {
    "mean": ({}, {}, HALVES, "image_mean: 0.5, 0.5, 0.5, and the base was trained under 0.485, 0.456"),
    "spread": ({}, {}, HALVES, "image_std: 0.5, 0.5, 0.5, and the base was trained under 0.229"),
    "size": ({}, {}, {"size": 112}, "size: 112 x 112, and the base was trained under 224 x 224"),
    "size of config": ({}, {"image_size": 160}, None, "224 x 224 .* the base was trained on 160 x 160"),
    "border": ({}, {}, {"size": {"shortest_edge": 128}}, "224 x 224 is more than the picture's 128 x 128"),
    "rescale": ({}, {}, {"do_rescale": False}, "do_rescale: false, and the base was trained under true"),
    "0 to 255": ({}, {}, {"do_rescale": False}, "is of pixels from 0 to 1, and they are 0 to 255"),
    "its own 0 to 255": ({"do_rescale": False}, {}, None, "from 0 to 1, and they are 0 to 255"),
    "its own mean": ({"image_mean": [123.0, 117.0, 104.0]}, {}, None, "set .*image_mean=.0.482, 0.459"),
    "not subtracted": ({"do_normalize": False}, {}, None, "do_normalize false, so it isn't subtracted"),
    "switched off": ({}, {}, {"do_normalize": False}, "false, and the base was trained under true"),
    "timm": ({}, {"pretrained_cfg": TIMM}, None, "says image_mean 0.485, 0.456, 0.406, its config.json"),
    "timm alone": (None, {"pretrained_cfg": TIMM}, {"image_mean": OWN["image_mean"]}, "under 0.5, 0.5"),
}  # fmt: skip


@pytest.mark.parametrize(("own", "config", "given", "said"), NOTED.values(), ids=list(NOTED))
def test_what_may_cost_accuracy_is_noted(
    tmp_path: Path, own: Any, config: Any, given: Any, said: str
) -> None:
    asked = recipe(given)
    facts = base(tmp_path, own, config)
    assert image_checks.refusals(asked, facts) == []
    found = image_checks.notes(asked, facts)
    assert any(_found(said, note) for note in found), found
    where = "model.image_processor" if given else "tiny: its"
    assert all(note.startswith(where) or "image_processor" in note for note in found)


def _found(said: str, note: str) -> bool:
    return re.search(said, note) is not None


REFUSED: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any] | None, str]] = {
    "nothing": (None, {}, None, "has no preprocessor_config.json, .* give size, image_mean, image_std"),
    "too little": (None, {}, {"size": 224}, "give image_mean, image_std as"),
    "channels": ({}, {"num_channels": 1}, None, "reads pictures of 1 channels"),
    "patches": (PLAIN, VIT, {"size": 112}, "112 x 112 .* takes 224 x 224 .*processor.size=224"),
    "patches of its own": ({**PLAIN, "size": 256}, VIT, None, "256 x 256 .* takes 224 x 224"),
    "one colour": ({"image_mean": [0.5]}, {}, None, "image_mean has 1 numbers"),
    "0 to 255": ({}, {}, {"image_mean": [123.0, 117.0, 104.0]}, "or set .*do_rescale=false"),
}  # fmt: skip


@pytest.mark.parametrize(("own", "config", "given", "said"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, own: Any, config: Any, given: Any, said: str
) -> None:
    found = image_checks.refusals(recipe(given), base(tmp_path, own, config))
    assert len(found) == 1
    assert _found(said, found[0]), found


GOOD: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any] | None]] = {
    "its own files": ({}, {}, None),
    "the same again": ({}, {}, {"image_mean": OWN["image_mean"], "size": 224}),
    "without a file": (None, {}, {"size": 224, **HALVES}),
    "without a file, not normalized": (None, {}, {"size": 224, "do_normalize": False}),
    "timm": (None, {"pretrained_cfg": TIMM}, None),
    "timm, alike": (HALVES, {"pretrained_cfg": TIMM}, None),
    "pixels to 255": ({"do_rescale": False, "image_mean": [123.0, 117.0, 104.0]}, {}, None),
    "of no normalization": ({"do_normalize": False, "image_mean": [0.0, 0.0, 0.0]}, {}, None),
    "patches": (PLAIN, VIT, None),
    "no size in config": ({}, {"image_size": None}, None),
}


@pytest.mark.parametrize(("own", "config", "given"), GOOD.values(), ids=list(GOOD))
def test_what_fits_is_passed_over(tmp_path: Path, own: Any, config: Any, given: Any) -> None:
    asked, facts = recipe(given), base(tmp_path, own, config)
    assert (image_checks.refusals(asked, facts), image_checks.notes(asked, facts)) == ([], [])


def test_the_models_config_may_be_set_otherwise_too(tmp_path: Path) -> None:
    facts = base(tmp_path, {}, {"image_size": 160})
    assert image_checks.notes(recipe(None, config={"image_size": 224}), facts) == []


def test_other_tasks_have_no_pictures(tmp_path: Path) -> None:
    facts = base(tmp_path, None, {})
    text = recipe({"size": 8}, task="sequence-classification")
    assert _found("has no pictures", image_checks.refusals(text, facts)[0])
    assert image_checks.refusals(recipe(None, task="sequence-classification"), facts) == []


@pytest.mark.parametrize(
    ("before", "given", "size", "crop"),
    [
        (OWN, {"size": 96}, {"shortest_edge": 96}, {"height": 96, "width": 96}),
        (OWN, {"size": 96, "crop_size": 80}, {"shortest_edge": 96}, {"height": 80, "width": 80}),
        (OWN, {"size": {"shortest_edge": 256}}, {"shortest_edge": 256}, OWN["crop_size"]),
        (OWN, {"size": 96, "do_center_crop": False}, {"shortest_edge": 96}, OWN["crop_size"]),
        ({}, {"size": 96}, {"height": 96, "width": 96}, None),
    ],
)
def test_a_crop_follows_a_whole_number(before: Any, given: Any, size: Any, crop: Any) -> None:
    found = {**before, **changes(ImageProcessor.model_validate(given), before)}
    assert (found["size"], found.get("crop_size")) == (size, crop)


def test_the_side_is_that_of_the_crop() -> None:
    assert side(OWN) == (224, 224)
    assert side({**OWN, "crop_size": {"height": 200, "width": 180}}) == (200, 180)
    assert side({"size": 32}) == (32, 32)
    assert side({"size": [32, 48]}) == (32, 48)
    assert side({}) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "says nothing"),
        ({"size": {"height": 8}}, "size is a whole number, or"),
        ({"crop_size": {"shortest_edge": 8}}, "crop_size is a whole number, or"),
        ({"do_normalize": False, "image_mean": (0.5, 0.5, 0.5)}, "image_mean is of no use"),
        ({"do_rescale": False, "rescale_factor": 0.5}, "rescale_factor is of no use"),
        ({"image_std": (0.0, 1.0, 1.0)}, "greater than 0"),
        ({"image_mean": (0.5, 0.5)}, "image_mean"),
        ({"size": 0}, "greater than 0"),
    ],
)
def test_what_contradicts_itself_is_no_setting(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ImageProcessor.model_validate(given)
