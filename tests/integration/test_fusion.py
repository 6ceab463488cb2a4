"""Attention over trained adapters: learned alone, saved whole, equal to a sum by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.integration.test_task_adapters import loaded
from tests.integration.test_worker_runs import LORA, Run, models, run, scores
from tlscale.errors import PlanError
from tlscale.models import artifact
from tlscale.models.fusion import Attention, Fusion, mean_shares
from tlscale.models.routing import change_by
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout

__all__ = ["models", "run"]

POOLED = {**LORA, "lora_dropout": 0.1, "head": "pooled"}
THING = {"text": "anchor", "label": "completion"}


@pytest.fixture
def sources(run: Run, models: dict[str, Path]) -> list[RunLayout]:
    """Adapters for the colour that a sentence names, and for the same in other words, of another rank."""
    things = {"path": str(models["more"]), **THING}
    return [
        run("sequence-classification", strategy=POOLED, folder="colour"),
        run(
            "sequence-classification", strategy={**POOLED, "r": 2, "target_modules": ["query", "value"]},
            folder="thing", data={"train": things, "test": things},
        ),
    ]  # fmt: skip


def fused(run: Run, sources: list[RunLayout], **train: Any) -> RunLayout:
    strategy = {"kind": "fusion", "adapters": [str(one.root) for one in sources], "size": 4}
    return run("sequence-classification", strategy=strategy, folder="fused", train=train)


def digests(layout: RunLayout) -> str:
    return hashlib.sha256((layout.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_attention_is_learned_over_frozen_adapters(run: Run, sources: list[RunLayout]) -> None:
    before = [digests(one) for one in sources]
    layout = fused(run, sources, max_steps=80)
    found = scores(layout)["target tuned accuracy"]
    assert found >= scores(sources[0])["target tuned accuracy"]
    assert found > 0.75
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    (said,) = [event["shares"] for event in events if event["event"] == "shares"]
    assert sum(said) == pytest.approx(1.0)
    assert said[0] != said[1]
    (verified,) = [event for event in events if event["event"] == "verified"]
    assert (verified["moved"], verified["max_difference"]) == (verified["tensors"], 0.0)
    manifest = artifact.read_manifest(layout.adapter)
    assert (manifest["kind"], manifest["attention"]) == ("adapters", 4)
    assert [digests(one) for one in sources] == before
    for index, digest in enumerate(before):
        kept = layout.adapter / f"source_{index}" / "adapter_model.safetensors"
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == digest

    module = loaded(layout)
    made = module.routes
    assert isinstance(made, Fusion)
    inside: Any = module.backbone
    layers = {name.replace(".", "/"): part for name, part in inside.named_modules()}
    place, attention = next((n, a) for n, a in made.attention.items() if n.endswith("query"))
    assert isinstance(attention, Attention)
    layer, given = layers[place], torch.randn(2, 3, 32)
    with torch.no_grad():
        changes = [change_by(layer, f"source_{i}", given) for i in range(2)]
        shares = attention.shares(given, torch.stack(changes, dim=-2))
        wanted = layer.base_layer(given) + sum(shares[..., i, None] * changes[i] for i in range(2))
        torch.testing.assert_close(layer(given), wanted)
        torch.testing.assert_close(layer.train()(given), wanted, msg="what is frozen has no dropout")
        layer.eval()
        torch.testing.assert_close(shares.sum(dim=-1), torch.ones(2, 3))
        assert shares.std() > 0
        with inside.disable_adapter():
            torch.testing.assert_close(layer(given), layer.base_layer(given))
        alone = next(part for name, part in layers.items() if name.endswith("intermediate/dense"))
        wanted = alone.base_layer(given) + change_by(alone, "source_0", given)
        torch.testing.assert_close(alone(given), wanted)
    assert {name.rpartition("/")[2] for name in made.attention} == {"query", "value"}
    assert read_plan(layout.plan).stages[0].trainable == sum(p.numel() for p in module.head.parameters())


def test_the_mean_share_leaves_padding_and_unchosen_layers_out() -> None:
    """By hand: two layers of three adapters, of which the second has but the last two."""

    class Layer(nn.Module):
        def __init__(self, fusion: Fusion) -> None:
            super().__init__()
            self.fusion = fusion.attention

        def forward(self, attention_mask: torch.Tensor) -> None:
            for place, changes in (("all", every), ("two", every[..., 1:, :])):
                self.fusion[place](given, changes)

    torch.manual_seed(0)
    given, every = torch.randn(2, 3, 6), torch.randn(2, 3, 3, 5)
    fusion = Fusion(["a", "b", "c"], 4)
    fusion.attention.update({name: Attention(6, 5, 4) for name in ("all", "two")})
    fusion.among = {"all": [0, 1, 2], "two": [1, 2]}
    for one in fusion.attention.parameters():
        nn.init.normal_(one)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    made: list[Any] = [*fusion.attention.values()]
    first, second = (
        attention.shares(given, changes)[mask.bool()].mean(dim=0)
        for attention, changes in zip(made, (every, every[..., 1:, :]), strict=True)
    )
    wanted = torch.stack([first[0], first[1] + second[0], first[2] + second[1]]) / 2
    found = mean_shares(Layer(fusion), fusion, [{"attention_mask": mask}])
    torch.testing.assert_close(torch.tensor(found), wanted.detach())
    assert sum(found) == pytest.approx(1.0)


def test_every_adapter_counts_alike_at_first() -> None:
    attention = Attention(6, 5, 3)
    shares = attention.shares(torch.randn(4, 6), torch.randn(4, 2, 5))
    torch.testing.assert_close(shares, torch.full((4, 2), 0.5))


def test_shares_and_their_sum_by_hand() -> None:
    torch.manual_seed(0)
    attention = Attention(6, 5, 3)
    torch.nn.init.normal_(attention.query.weight)
    given, changes = torch.randn(6), torch.tensor([1.0, 100.0])[:, None] * torch.randn(2, 5)
    with torch.no_grad():
        query = attention.query.weight @ given
        keys = [attention.key.weight @ (change / change.norm() * 5**0.5) for change in changes]
        weights = torch.stack([(key * query).sum() / 3**0.5 for key in keys]).exp()
        wanted = weights / weights.sum()
        torch.testing.assert_close(attention.shares(given, changes), wanted)
        torch.testing.assert_close(
            attention(given, changes), wanted[0] * changes[0] + wanted[1] * changes[1]
        )


def test_adapters_that_do_not_fit_are_refused(run: Run, sources: list[RunLayout], models: Any) -> None:
    config = sources[1].adapter / "adapter_config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "use_dora": True}))
    with pytest.raises(PlanError, match="only plain LoRA"):
        fused(run, sources, max_steps=1)
    config.write_text(json.dumps({**said, "bias": "all"}))
    with pytest.raises(PlanError, match="only plain LoRA"):
        fused(run, sources, max_steps=1)
    config.write_text(json.dumps({**said, "modules_to_save": ["pooler"]}))
    with pytest.raises(PlanError, match="holds whole modules too"):
        fused(run, sources, max_steps=1)
    config.write_text(json.dumps(said))
    manifest = sources[1].adapter / "manifest.json"
    about = json.loads(manifest.read_text())
    for other in ({"base": "other"}, {"revision": "other"}):
        manifest.write_text(json.dumps({**about, **other}))
        with pytest.raises(PlanError, match=r"it was trained on .*other.*, and this"):
            fused(run, sources, max_steps=1)
    manifest.unlink()
    with pytest.raises(PlanError, match="no adapter that tlscale saved"):
        fused(run, sources, max_steps=1)
