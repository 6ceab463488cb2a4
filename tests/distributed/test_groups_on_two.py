"""Parameters with rates, decay and first steps of their own: the same under every way to share out.

Blocks join one after the other, from checkpoints too, which go on under another way than they were made.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import kit
from tests.integration import tiny
from tlscale.runs.layout import RunLayout

STRATEGY = {"kind": "gradual_unfreezing", "steps_per_block": 2, "decay": 0.5}
TRAIN = {"max_steps": 9, "save_steps": 3, "weight_decay": 0.1, "learning_rate": 3e-3, "keep_checkpoints": 9}
WAYS = ("none", "zero2", "zero3", "fsdp2")
OTHER = {"none": "zero2", "zero2": "zero3", "zero3": "fsdp2", "fsdp2": "none"}


def cases(root: Path, ways: dict[str, str]) -> list[dict[str, Any]]:
    """A case for each name, shared out in the way that is given for it."""
    made = []
    for name, way in ways.items():
        hardware = {"processes": 2, "sharding": way}
        case = kit.recipe(
            name, root / "model", root / "rows.jsonl", method="full", train=TRAIN, hardware=hardware
        )
        made.append({**case, "strategy": STRATEGY})
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("groups")
    (made / "model").mkdir()
    tiny.llama(made / "model")
    tiny.sentences(made / "rows.jsonl", 40)
    return made


@pytest.fixture(scope="module")
def straight(root: Path) -> dict[str, kit.Outcome]:
    return kit.run(cases(root, {way: way for way in WAYS}), root / "two", processes=2)


@pytest.mark.parametrize("way", WAYS[1:])
def test_groups_train_as_they_do_unshared(way: str, straight: dict[str, kit.Outcome]) -> None:
    found, plain = straight[way], straight["none"]
    assert not plain.error, plain.error
    assert not found.error, found.error
    assert kit.loss_difference(found, plain) <= 1e-5
    assert kit.weight_difference(found, plain) <= 1e-5


@pytest.mark.long
def test_a_checkpoint_goes_on_under_another_way(root: Path, straight: dict[str, kit.Outcome]) -> None:
    """From step 3, when a block has learned, one has just joined, and the others rest."""
    for way in WAYS:
        layout = RunLayout(straight[way].folder)
        for step in (6, 9):
            shutil.rmtree(next(layout.checkpoints("train").glob(f"*{step}")))
        shutil.rmtree(layout.artifact("train"))
    again = kit.run(cases(root, OTHER), root / "two", processes=2)
    for way, found in again.items():
        assert not found.error, found.error
        assert len(found.losses) == 15, "9 steps at first, and those from 4 on again"
        for step in range(3, 9):
            assert found.losses[6 + step] == pytest.approx(straight[way].losses[step], rel=1e-5), (
                way,
                step,
            )
