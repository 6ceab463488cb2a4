"""The memory account: what each item counts, and how it moves with what the recipe changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.facts import LABELS, llama
from tlscale.planning import memory
from tlscale.planning.adapters import adapter_size
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_ALL, TRAIN_HEAD, Context, stage
from tlscale.planning.types import Adapter, Batch, Facts, Head, ParamRule, Update, World
from tlscale.recipe.train import Train
from tlscale.recipe.types import Model, Recipe

LORA = Adapter(peft_type="LORA", fields={"r": 4, "target_modules": "all-linear"})
CPU = World(device="cpu", processes=1, dtype="float32", memory_per_device=None)
GPU = World(device="cuda", processes=1, dtype="bfloat16", memory_per_device=None)


def account(
    facts: Facts,
    *,
    world: World = CPU,
    micro: int = 2,
    accumulation: int = 1,
    length: int = 64,
    quantization: Any = "none",
    **slots: Any,
) -> dict[str, int]:
    task: Any = "sequence-classification" if facts.labels else "causal-lm"
    model = Model(model_name_or_path="tiny", task=task, quantization=quantization)
    recipe = Recipe(version=1, name="t", model=model, strategy={"kind": "full"})
    made = stage(Context(recipe, Train(), facts), **slots)
    frozen = {"rules": (TRAIN_ALL,)} | slots
    trained = sum(
        t.size
        for t in facts.tensors
        if frozen["rules"] == (TRAIN_ALL,) or (TRAIN_HEAD in frozen["rules"] and t.name.startswith("head."))
    )
    added = adapter_size(made.adapter, facts)[0] if made.adapter else 0
    batch = Batch(micro=micro, accumulation=accumulation, world=1)
    items = memory.account(facts, made, batch, world, length, model, trained + added)
    return {item.name: item.bytes for item in items}


def parameters(facts: Facts) -> int:
    return sum(tensor.size for tensor in facts.tensors)


def test_full_training_keeps_weights_and_two_states_per_parameter() -> None:
    facts = llama()
    items = account(facts, micro=64)
    assert items["weights"] == 4 * parameters(facts)
    assert items["optimizer"] == 8 * parameters(facts)
    assert "adapter and head" not in items
    assert items["overhead"] == items["activations"] + items["logits"]


def test_momentum_is_one_state() -> None:
    update = Update(optim="sgd", learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.999), max_grad_norm=1.0)
    facts = llama()
    assert account(facts, micro=64, update=update)["optimizer"] == 4 * parameters(facts)


def test_frozen_weights_have_no_gradients_and_no_states() -> None:
    facts = llama()
    added = adapter_size(LORA, facts)[0]
    items = account(facts, adapter=LORA, rules=(FREEZE_ALL,), accumulation=2)
    assert items["weights"] == 4 * parameters(facts)
    assert items["adapter and head"] == 4 * added
    assert items["gradients"] == 4 * added
    assert items["optimizer"] == 8 * added


def test_gradients_outlive_a_pass_only_under_accumulation() -> None:
    facts = llama()
    once, twice = account(facts, micro=64), account(facts, micro=64, accumulation=2)
    assert once.get("gradients", 0) < 4 * parameters(facts)
    assert twice["gradients"] == 4 * parameters(facts)


def test_a_peak_at_the_update_has_no_activations() -> None:
    items = account(llama(), micro=1, length=1)
    largest = max(tensor.size for tensor in llama().tensors)
    assert items["gradients"] == 4 * parameters(llama())
    assert items["optimizer"] == 8 * parameters(llama()) + 8 * largest
    assert "activations" not in items


def test_activations_grow_with_rows_and_tokens_and_shrink_when_recomputed() -> None:
    facts = llama(layers=8)
    base = account(facts, micro=8)["activations"]
    assert account(facts, micro=16)["activations"] == 2 * base
    assert account(facts, micro=8, length=128)["activations"] == 2 * base
    assert account(facts, micro=8, gradient_checkpointing=True)["activations"] < base / 3


def test_frozen_blocks_below_the_first_trained_one_keep_nothing() -> None:
    facts = llama(layers=8)
    top = ParamRule(pattern=r"layers\.7\..*", lr_scale=1.0)
    assert (
        account(facts, micro=32, rules=(top, FREEZE_ALL))["activations"]
        < account(facts, micro=32)["activations"] / 4
    )


def test_an_adapter_keeps_less_than_full_training_and_more_with_more_layers() -> None:
    facts = llama(layers=4)
    narrow = Adapter(peft_type="LORA", fields={"r": 4, "target_modules": ["q_proj"]})
    few = account(facts, micro=32, adapter=narrow, rules=(FREEZE_ALL,))["activations"]
    many = account(facts, micro=32, adapter=LORA, rules=(FREEZE_ALL,))["activations"]
    assert few < many < account(facts, micro=32)["activations"]


def test_logits_are_three_float32_copies() -> None:
    items = account(llama(), micro=64)
    assert items["logits"] == 3 * 4 * 64 * 64 * 64
    assert account(llama(), world=GPU, micro=64)["logits"] == items["logits"]


def test_quantized_blocks_take_a_fraction_and_embeddings_stay() -> None:
    facts = llama(hidden=64)
    linear = sum(t.size for t in facts.tensors if "proj" in t.name)
    rest = parameters(facts) - linear
    slots: dict[str, Any] = {"adapter": LORA, "rules": (FREEZE_ALL,)}
    four = account(facts, world=GPU, quantization="nf4", **slots)["weights"]
    eight = account(facts, world=GPU, quantization="int8", **slots)["weights"]
    assert four == pytest.approx(2 * rest + linear * (0.5 + 1 / 64 + 1 / 4096), abs=1)
    assert linear < eight - 2 * rest < 1.1 * linear


def test_half_precision_keeps_trained_weights_in_float32() -> None:
    facts = llama()
    assert account(facts, world=GPU)["weights"] == 4 * parameters(facts)
    frozen = account(facts, world=GPU, adapter=LORA, rules=(FREEZE_ALL,))
    assert frozen["weights"] == 2 * parameters(facts)
    assert frozen["overhead"] > 100_000_000


def test_a_pooled_head_over_a_frozen_base_needs_one_inference_at_most() -> None:
    facts = llama(layers=8, labels=LABELS)
    pooled = account(facts, micro=32, head=Head(kind="pooled"), rules=(TRAIN_HEAD, FREEZE_ALL))
    assert pooled["activations"] < account(facts, micro=32)["activations"] / 8
    assert "logits" not in pooled
