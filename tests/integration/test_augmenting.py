"""Pictures that vary in training: the same draws for an epoch and a row, and none where they are scored."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.integration.test_worker_runs import Run, logged, models, run, scores
from tlscale.data.augmenting import RATIOS, augmented, augmenting, crop
from tlscale.data.pixels import pixels_of
from tlscale.data.types import Example
from tlscale.errors import PlanError
from tlscale.planning.compile import read_plan
from tlscale.recipe.pictures import Augmentation
from tlscale.runs.layout import RunLayout
from tlscale.worker.alone import alone
from tlscale.worker.examples import load_examples

__all__ = ["models", "run"]

DRAWN: dict[str, Any] = {"random_resized_crop": [0.3, 1.0], "horizontal_flip": 0.5, "color_jitter": 0.4}
FULL = {"kind": "full"}


def noise(width: int = 12, height: int = 9, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def of(**asked: Any) -> Augmentation:
    return Augmentation.model_validate(asked)


def test_a_picture_that_is_surely_mirrored() -> None:
    picture = noise()
    found = augmented(picture, of(horizontal_flip=1.0), random.Random(0))
    assert np.array_equal(np.asarray(found), np.asarray(picture)[:, ::-1])


def test_boxes_have_the_share_and_the_shape_that_are_asked() -> None:
    draw = random.Random(0)
    boxes = [crop((400, 300), (0.2, 0.6), draw) for _ in range(500)]
    sides = [(right - left, bottom - top) for left, top, right, bottom in boxes]
    shares = [wide * high / 120_000 for wide, high in sides]
    assert 0.19 < min(shares) < 0.22
    assert 0.58 < max(shares) < 0.61
    ratios = [wide / high for wide, high in sides]
    assert RATIOS[0] - 0.01 < min(ratios) < 0.78
    assert 1.28 < max(ratios) < RATIOS[1] + 0.01
    assert all(0 <= box[0] < box[2] <= 400 and 0 <= box[1] < box[3] <= 300 for box in boxes)
    assert min(box[0] for box in boxes) < 10
    assert max(box[2] for box in boxes) > 390
    assert crop((1000, 2), (0.9, 1.0), draw) == (0, 0, 1000, 2), "where none fits, all of it"


def test_a_cut_is_enlarged_to_the_picture_it_was_cut_from() -> None:
    halves = np.zeros((64, 64, 3), dtype=np.uint8)
    halves[:, 32:] = 255
    found = [
        np.asarray(augmented(Image.fromarray(halves), of(random_resized_crop=(0.1, 0.2)), random.Random(i)))
        for i in range(40)
    ]
    assert {one.shape for one in found} == {(64, 64, 3)}
    bright = [float(one.mean()) / 255 for one in found]
    assert min(bright) == 0.0
    assert max(bright) == 1.0


def test_brightness_changes_by_no_more_than_asked() -> None:
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    found = [np.asarray(augmented(grey, of(color_jitter=0.3), random.Random(i))).mean() for i in range(200)]
    assert 69 <= min(found) < 75
    assert 125 < max(found) <= 131


class Plain:
    """Pixels as they are, in the form of a transformers image processor."""

    def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.from_numpy(np.array(images)).permute(2, 0, 1)[None].float()}


def test_a_draw_is_that_of_its_name_epoch_and_row() -> None:
    picture = noise()
    example = Example(where="a", label=0, picture=picture, pixels=pixels_of(picture, Plain()))
    vary, again = (
        augmenting(Plain(), of(**{**DRAWN, "random_resized_crop": (0.3, 1.0)}), "seed 1") for _ in range(2)
    )
    other = augmenting(Plain(), of(**{**DRAWN, "random_resized_crop": (0.3, 1.0)}), "seed 2")
    first = vary(example, 3, 5).pixels
    assert torch.equal(first, again(example, 3, 5).pixels)
    for different in (vary(example, 4, 5), vary(example, 3, 6), other(example, 3, 5)):
        assert not torch.equal(first, different.pixels)
    bare = Example(where="a", label=0, pixels=first)
    assert vary(bare, 0, 0) is bare


def test_only_rows_to_train_on_keep_their_pictures(run: Run) -> None:
    layout = run(
        "image-classification", strategy=FULL, data={"augmentation": DRAWN}, train={"max_steps": 1}
    )
    plan = read_plan(layout.plan)
    job = alone(plan, layout)
    found = load_examples(plan, layout, job.runtime, job.processor, job.reporter)
    assert set(found) == {"train", "test"}
    assert all(one.picture is not None for one in found["train"])
    assert all(one.picture is None for one in found["test"])


def of_base(layout: RunLayout) -> dict[str, float]:
    return {name: value for name, value in scores(layout).items() if " tuned " not in name}


def test_a_run_that_goes_on_draws_the_same_and_scores_what_it_would_anyway(run: Run) -> None:
    train = {"max_steps": 8, "save_steps": 4, "logging_steps": 1}
    data = {"augmentation": DRAWN}
    plain = run("image-classification", strategy=FULL, train=train, folder="plain")
    layout = run("image-classification", strategy=FULL, train=train, data=data)
    before = logged(layout)
    assert before != logged(plain)
    kept = scores(layout)
    layout.done.unlink()
    layout.measurements.unlink()
    shutil.rmtree(layout.artifact("train"))
    shutil.rmtree(sorted(layout.checkpoints("train").glob("step-*"))[-1])
    run("image-classification", strategy=FULL, train=train, data=data)
    assert logged(layout) == [*before, *before[4:]]
    assert scores(layout) == kept
    assert of_base(layout) == of_base(plain)


def test_features_that_are_computed_once_cannot_vary(run: Run, models: dict[str, Path]) -> None:
    with pytest.raises(PlanError, match=r"data\.augmentation: the frozen backbone's features"):
        run("image-classification", strategy={"kind": "features"}, data={"augmentation": DRAWN})
    with pytest.raises(PlanError, match=r"data\.augmentation: only pictures are cut"):
        run("sequence-classification", strategy=FULL, data={"augmentation": DRAWN})
