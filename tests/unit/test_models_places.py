"""Masked language models answer at the hidden places alone, as they do when they answer everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from tests.unit.facts import llama
from tests.unit.test_plan_memory import CPU
from tlscale.engine.objectives import task_loss
from tlscale.engine.view import View, answered
from tlscale.models.likelihood import answers, token_nll
from tlscale.models.names import transformers_model
from tlscale.models.quiet import quiet
from tlscale.planning.memory import account
from tlscale.planning.strategy import Context, stage
from tlscale.planning.tasks import PLACEWISE
from tlscale.planning.types import Batch
from tlscale.recipe.train import Train
from tlscale.recipe.types import Model, Recipe

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "embedding_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 24, "pad_token_id": 0,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "modernbert": {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
}
LENGTH = 9


def model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    known = AutoConfig.for_model(kind).to_dict()
    sizes = {name: value for name, value in SIZES.items() if name in known}
    made: nn.Module = AutoModelForMaskedLM.from_config(
        AutoConfig.for_model(kind, **sizes, **OWN.get(kind, {}))
    )
    return made.eval()


def batch() -> dict[str, torch.Tensor]:
    """Three rows, one of them with padding; the labels stand one place after the hidden tokens."""
    torch.manual_seed(1)
    ids = torch.randint(3, 40, (3, LENGTH))
    mask = torch.ones_like(ids)
    ids[2, 6:], mask[2, 6:] = 0, 0
    labels = torch.full_like(ids, -100)
    for row, place, token in ((0, 1, 7), (0, 4, 9), (1, 3, 7), (2, 2, 30), (2, 5, 3)):
        labels[row, place + 1] = token
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def everywhere(module: nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The summed loss from all logits."""
    told = {name: value for name, value in given.items() if name != "labels"}
    return token_nll(module(**told).logits, given["labels"]).sum()


@pytest.mark.parametrize("kind", PLACEWISE)
def test_loss_and_gradients_are_those_of_all_logits(kind: str) -> None:
    module, given = model(kind), batch()
    view = View(module, {"train": given})
    loss, plain = task_loss(view, "train", 0.0), everywhere(module, given)
    assert tuple(view.output().logits.shape) == (1, 5, 40)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    names, weights = zip(*module.named_parameters(), strict=True)
    sides = [torch.autograd.grad(one, weights, allow_unused=True) for one in (loss, plain)]
    for name, mine, theirs in zip(names, *sides, strict=True):
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            assert torch.allclose(mine, theirs, atol=2e-6), name
    # and outside of training it is the model that it was
    assert module(input_ids=given["input_ids"]).logits.shape[:2] == (3, LENGTH)


def lora(module: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    chosen = ["query", "value", "decoder"]
    config = LoraConfig(target_modules=chosen, init_lora_weights=False)
    with quiet():
        return get_peft_model(module, config)


def recomputed(module: nn.Module) -> nn.Module:
    inner = transformers_model(module)
    inner.train()
    for part in inner.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    inner.activation_checkpointing_enable({"use_reentrant": False})
    return module


@pytest.mark.parametrize("wrap", [lora, recomputed], ids=["lora", "recomputed"])
def test_around_an_adapter_and_with_recomputation(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module, given = wrap(model("bert")), batch()
    trained = [p for p in module.parameters() if p.requires_grad]
    loss = task_loss(View(module, {"train": given}), "train", 0.1)
    logits = module(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    chosen, wanted = answers(logits, given["labels"])
    plain = nn.functional.cross_entropy(chosen, wanted, reduction="sum", label_smoothing=0.1)
    sides = [torch.autograd.grad(one, trained, allow_unused=True) for one in (loss, plain)]
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for mine, theirs in zip(*sides, strict=True):
        assert mine is None or torch.allclose(mine, theirs, atol=2e-6)


def test_other_models_answer_everywhere() -> None:
    given = batch()
    config = AutoConfig.for_model("llama", **{**SIZES, "num_key_value_heads": 2})
    causal = AutoModelForCausalLM.from_config(config).eval()
    assert answered(causal, given).logits.shape == (3, LENGTH, 40)
    filling = model("bert")
    no_tokens = {**given, "labels": torch.tensor([0, 1, 0])}
    assert answered(filling, no_tokens).logits.shape == (3, LENGTH, 40)


def test_a_place_that_nobody_asks_for_costs_nothing() -> None:
    given = {**batch(), "labels": torch.full((3, LENGTH), -100)}
    loss = task_loss(View(model("bert"), {"train": given}), "train", 0.0)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize(("kind", "share"), [("bert", 0.15), ("bert", 0.4), ("reformer", None)])
def test_the_plan_counts_the_logits_that_there_are(kind: str, share: float | None) -> None:
    facts = llama()
    wide = {"model_type": kind, "vocab_size": 30_000}
    facts = facts.model_copy(update={"architecture": facts.architecture.model_copy(update=wide)})
    filling = Model(model_name_or_path="tiny", task="masked-lm")
    recipe = Recipe(version=1, name="t", model=filling, strategy={"kind": "full"})
    made = stage(Context(recipe, Train(), facts))
    batch, size = Batch(micro=64, accumulation=1, world=1), sum(t.size for t in facts.tensors)

    def logits(hidden: float) -> int:
        items = account(facts, made, batch, CPU, 64, filling, size, hidden=hidden)
        return next(item.bytes for item in items if item.name == "logits")

    assert logits(share or 0.15) == pytest.approx((share or 1.0) * logits(1.0), abs=1)
