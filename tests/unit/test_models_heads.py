"""Pooling and heads of our own, on tensors small enough to work out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig, ViTConfig

from tlscale.models.heads import PooledClassifier, PooledHead, Pooling, choose_pooling, pool, without_pooler

HIDDEN = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [99.0, 99.0]], [[2.0, 20.0], [4.0, 40.0], [6.0, 60.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


class Echo(nn.Module):
    """A backbone that returns the states it is given."""

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> object:
        return type("Output", (), {"last_hidden_state": states})()


def test_mean_leaves_padding_out() -> None:
    assert pool(HIDDEN, MASK, "mean").tolist() == [[2.0, 20.0], [4.0, 40.0]]


def test_last_takes_the_last_real_token() -> None:
    assert pool(HIDDEN, MASK, "last").tolist() == [[3.0, 30.0], [6.0, 60.0]]


def test_last_and_cls_find_real_tokens_behind_left_padding() -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 1]])
    assert pool(HIDDEN, mask, "last").tolist() == [[99.0, 99.0], [6.0, 60.0]]
    assert pool(HIDDEN, mask, "cls").tolist() == [[3.0, 30.0], [6.0, 60.0]]


def test_virtual_tokens_in_front_are_left_out() -> None:
    longer = torch.cat([torch.full((2, 2, 2), 1000.0), HIDDEN], dim=1)
    poolings: tuple[Pooling, ...] = ("mean", "cls", "last")
    for pooling in poolings:
        assert torch.equal(pool(longer, MASK, pooling), pool(HIDDEN, MASK, pooling))


def test_feature_maps_are_averaged_over_space() -> None:
    maps = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert pool(maps, None, "mean").tolist() == [[1.5, 5.5]]


def test_half_precision_states_are_summed_in_float32() -> None:
    states = torch.full((1, 3000, 1), 1.0, dtype=torch.bfloat16)
    states[0, 0] = 2.0
    assert pool(states, None, "mean").item() == pytest.approx(3001 / 3000, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "images", "expected"),
    [
        (BertConfig(**SMALL, vocab_size=9), False, "mean"),
        (LlamaConfig(**SMALL, vocab_size=9), False, "last"),
        (GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9), False, "last"),
        (ViTConfig(**SMALL, image_size=8, patch_size=4), True, "cls"),
    ],
)
def test_auto_pooling_fits_the_architecture(config: object, images: bool, expected: str) -> None:
    backbone = AutoModel.from_config(config)
    assert choose_pooling(backbone, "auto", images=images) == expected
    assert choose_pooling(backbone, "cls", images=images) == "cls"


def test_features_have_the_norm_of_the_square_root_of_their_number() -> None:
    module = PooledClassifier(Echo(), "mean", PooledHead(2, 3, 0), normalize=True)
    features = module.features(states=HIDDEN, attention_mask=MASK)
    assert features.norm(dim=-1).tolist() == pytest.approx([math.sqrt(2)] * 2)
    whole = module(states=HIDDEN, attention_mask=MASK).logits
    assert torch.equal(module(features=features).logits, whole)
    assert whole.shape == (2, 3)


def test_a_hidden_layer_is_there_only_when_asked_for() -> None:
    assert sum(p.numel() for p in PooledHead(4, 3, 0).parameters()) == 4 * 3 + 3
    assert sum(p.numel() for p in PooledHead(4, 3, 5).parameters()) == 4 * 5 + 5 + 5 * 3 + 3


def test_an_unused_pooling_layer_is_dropped() -> None:
    made = without_pooler(AutoModel.from_config(BertConfig(**SMALL, vocab_size=9)))
    assert not [name for name, _ in made.named_parameters() if name.startswith("pooler")]
    assert made(input_ids=torch.tensor([[1, 2]])).last_hidden_state.shape == (1, 2, 8)
