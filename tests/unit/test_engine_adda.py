"""Games against a discriminator: gradients by hand; ADDA on planted domains, and a run that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.test_engine_loop import training
from tests.unit.test_engine_terms import setting
from tests.unit.test_resume import Killed
from tlscale.data.examples import Example
from tlscale.engine.loop import Training, train
from tlscale.engine.terms.adversarial import make_adda, make_cdan, make_dann, strength
from tlscale.engine.view import View
from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.outer.repeat import control
from tlscale.planning.types import Term
from tlscale.recipe.load import check

OPTIONS: dict[str, Any] = {"hidden": 16, "lr_scale": 1.0}
SHIFT = torch.tensor([0.0, 1.5, -1.0, 0.0])


class Backbone(nn.Module):
    """Four numbers to a feature map of one place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 4))

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=self.layers(pixel_values)[:, :, None, None])


def rows(count: int, seed: int, moved: Tensor) -> list[Example]:
    """Two classes on both sides of a plane; the target's rows are moved across it."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        label = index % 2
        point = 0.3 * torch.randn(4, generator=generator) + (2 * label - 1) * torch.tensor(
            [0.8, 0.8, 0.0, 0.5]
        )
        made.append(Example(where=f"{seed}:{index}", label=label, pixels=point + moved))
    return made


SOURCE, TARGET = rows(96, 1, 0 * SHIFT), rows(96, 2, SHIFT)


def collated(examples: Sequence[Example]) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.stack([e.pixels for e in examples if e.pixels is not None]),
        "labels": torch.tensor([e.label for e in examples]),
    }


def classifier() -> PooledClassifier:
    torch.manual_seed(0)
    return PooledClassifier(Backbone(), "mean", PooledHead(4, 2, 0), normalize=False)


def stage(folder: Path, term: Term, steps: int, rate: float, **budget: Any) -> Training:
    made = training(folder, learning_rate=rate, max_steps=steps, micro=16, **budget)
    asked = made.planned.stage.model_copy(
        update={
            "objective": (term,),
            "update": made.planned.stage.update.model_copy(update={"weight_decay": 0.0}),
        }
    )
    return replace(
        made, planned=made.planned.model_copy(update={"stage": asked}), examples=SOURCE,
        streams={"unlabelled": [replace(row, label=0) for row in TARGET]}, collate=collated,
        scales={name: 1.0 for name, _ in classifier().named_parameters()},
    )  # fmt: skip


def adapted(folder: Path, start: dict[str, Tensor], **given: Any) -> PooledClassifier:
    module = classifier()
    module.load_state_dict(start)
    module.head.requires_grad_(False)
    watcher = given.pop("watcher", None)
    made = stage(folder, Term(name="adda", options=OPTIONS), 150, 3e-3, **given)
    torch.manual_seed(5)
    train(module, made if watcher is None else replace(made, watcher=watcher))
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    module = classifier()
    train(module, stage(tmp_path_factory.mktemp("source"), Term(), 60, 1e-2))
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@torch.no_grad()
def accuracy(module: nn.Module, examples: Sequence[Example]) -> float:
    batch = collated(examples)
    answers = module.eval()(pixel_values=batch["pixel_values"]).logits.argmax(-1)
    return float((answers == batch["labels"]).float().mean())


def test_it_moves_the_target_to_the_source(source: dict[str, Tensor], tmp_path: Path) -> None:
    before = classifier()
    before.load_state_dict(source)
    assert accuracy(before, SOURCE) > 0.95
    after = adapted(tmp_path, source)
    gained = accuracy(after, TARGET) - accuracy(before, TARGET)
    print(f"target accuracy {accuracy(before, TARGET):.3f} -> {accuracy(after, TARGET):.3f}")
    assert gained > 0.1
    for name, value in after.state_dict().items():
        if name.startswith("head."):
            assert torch.equal(value, source[name]), "the head rests"


def test_a_run_goes_on_with_its_discriminator(source: dict[str, Tensor], tmp_path: Path) -> None:
    straight = adapted(tmp_path / "a", source, save_steps=40)
    with pytest.raises(KeyboardInterrupt):
        adapted(tmp_path / "b", source, save_steps=40, watcher=Killed(90))
    resumed = adapted(tmp_path / "b", source, save_steps=40)
    for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_gradients_by_hand(source: dict[str, Tensor], tmp_path: Path) -> None:
    """The encoder gets that of inverted labels on target rows alone, the discriminator that of others."""
    module = classifier().eval()
    module.load_state_dict(source)
    made = stage(tmp_path, Term(name="adda", options=OPTIONS), 10, 1e-3)
    term = make_adda(OPTIONS, setting(module, made))
    with torch.no_grad():
        for weight in module.backbone.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    batches = {"train": collated(SOURCE[:6]), "unlabelled": collated(TARGET[:6])}
    assert term.needs == ("unlabelled",)
    assert term.count(batches) == 12
    (term.total(View(module, batches)) / term.count(batches)).backward()
    player: Any = term.learned["player"]
    found = {name: p.grad for name, p in module.backbone.named_parameters()}
    told = {name: p.grad for name, p in player.named_parameters()}

    start = classifier().eval()
    start.load_state_dict(source)
    theirs = start.features(pixel_values=batches["train"]["pixel_values"]).detach()
    module.zero_grad()
    ours = module.features(pixel_values=batches["unlabelled"]["pixel_values"])
    fooled = functional.softplus(-player(ours)).mean()
    right = functional.softplus(-player(theirs)).mean() + functional.softplus(player(ours.detach())).mean()
    for name, p in module.backbone.named_parameters():
        (slope,) = torch.autograd.grad(fooled, p, retain_graph=True)
        assert torch.allclose(slope, found[name], atol=1e-6), name
    for name, p in player.named_parameters():
        (slope,) = torch.autograd.grad(right, p, retain_graph=True)
        assert torch.allclose(slope, told[name], atol=1e-6), name


@pytest.mark.parametrize("make", [make_dann, make_cdan], ids=["dann", "cdan"])
def test_reversed_gradients_by_hand(make: Any, source: dict[str, Tensor], tmp_path: Path) -> None:
    """The discriminator's are those of its cross-entropy, the encoder's the same the other way round."""
    module = classifier().eval()
    module.load_state_dict(source)
    made = stage(tmp_path, Term(), 10, 1e-3)
    term = make(OPTIONS, setting(module, made))
    batches = {"train": collated(SOURCE[:6]), "unlabelled": collated(TARGET[:4])}
    view = View(module, batches, progress=0.1)
    (term.total(view) / term.count(batches)).backward()
    player: Any = term.learned["player"]
    names = [name for name, _ in module.named_parameters()]
    found = [p.grad for p in (*module.parameters(), *player.parameters())]

    seen = {}
    for stream, batch in batches.items():
        features = module.features(pixel_values=batch["pixel_values"])
        chances = module.head(features).softmax(-1).detach()
        pairs = [torch.outer(c, f).flatten() for c, f in zip(chances, features, strict=True)]
        seen[stream] = torch.stack(pairs) if make is make_cdan else features
    told = (
        functional.softplus(-player(seen["train"])).sum()
        + functional.softplus(player(seen["unlabelled"])).sum()
    )
    asked = [*module.parameters(), *player.parameters()]
    slopes = torch.autograd.grad(told / 10, asked, allow_unused=True)
    for name, slope, given in zip([*names, *[""] * 4], slopes, found, strict=True):
        if slope is None:
            assert given is None, name
            continue
        assert given is not None, name
        assert torch.allclose(given, -strength(0.1) * slope if name else slope, atol=1e-6), name


def test_training_without_adapting_leaves_the_whole_stage_out() -> None:
    rows = {"hub": "org/digits", "image": "image", "label": "label"}
    recipe = check(
        {
            "version": 1, "name": "t",
            "model": {"model_name_or_path": "org/images", "task": "image-classification"},
            "data": {"train": rows, "unlabelled": rows, "test": rows},
            "stages": [{"name": "source", "strategy": {"kind": "layer_decay", "head": "pooled"}},
                       {"name": "target", "strategy": {"kind": "adda"}}],
            "evaluate": {"against": ["source_only"]},
        },
        source="t",
    )  # fmt: skip
    assert [stage.name for stage in control(recipe, "source_only").stages] == ["source"]
