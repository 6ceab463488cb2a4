"""Packed rows teach exactly what their texts teach alone, where a network keeps them apart."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from tlscale.data.collate import collate
from tlscale.data.packing import Packed, rows_of
from tlscale.data.types import Example
from tlscale.engine.objectives import task
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.models.caching import without_cache
from tlscale.worker.packing import leakage, pack

CPU = torch.device("cpu")
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
KEYED = {**SIZE, "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
APART = {
    "llama": LlamaConfig(**KEYED),
    "qwen3": Qwen3Config(**KEYED),
    "mistral": MistralConfig(**KEYED, sliding_window=4),
    "gemma2": Gemma2Config(**KEYED, sliding_window=4),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=40),
    "neox": GPTNeoXConfig(**SIZE, intermediate_size=48),
}
collated = partial(collate, task="causal-lm", pad_id=0)


def model(config: PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def texts(count: int = 9) -> list[Example]:
    generator = random.Random(1)
    made = []
    for index in range(count):
        length = generator.randint(3, 12)
        loss = [False, *(generator.random() < 0.7 for _ in range(length - 2)), True]
        ids = [generator.randint(1, 39) for _ in range(length)]
        made.append(Example(where=f"rows:{index}", tokens=ids, loss=loss))
    return made


@pytest.mark.parametrize("kind", sorted(APART))
def test_a_packed_row_has_the_loss_and_the_gradient_of_its_texts(kind: str) -> None:
    module, examples = model(APART[kind]), texts()
    rows = Packed(examples, 24)
    assert len(rows) < len(examples)
    found = []
    for some in (examples, rows):
        module.zero_grad()
        batch = collated(some)
        with without_cache(module):
            total = task.total(View(module, {"train": batch}))
        total.backward()
        norm = torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()
        found.append((float(total.detach()), float(norm), task.count({"train": batch})))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert leakage(module, examples, collate=collated, device=CPU) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=40, state_size=4),
        OPTConfig(**SIZE, ffn_dim=48, word_embed_proj_dim=32),
    ],
    ids=lambda config: config.model_type,
)
def test_a_network_that_mixes_packed_texts_is_refused(config: PreTrainedConfig) -> None:
    module = model(config)
    with pytest.raises(PlanError, match=r"data\.packing: the model does not keep packed texts apart"):
        pack(module, texts(), size=24, collate=collated, device=CPU)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_full_whole_and_few(seed: int) -> None:
    generator = random.Random(seed)
    size = generator.randint(4, 64)
    lengths = [generator.randint(1, size) for _ in range(generator.randint(1, 200))]
    rows = rows_of(lengths, size)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= size for row in rows)
    # two rows that are half empty would have been one
    assert sum(2 * sum(lengths[index] for index in row) <= size for row in rows) <= 1


def test_a_row_says_where_all_of_it_came_from() -> None:
    examples = texts(3)
    (row,) = Packed(examples, 100)
    assert row.where == "rows:0, rows:1, rows:2"
    assert row.segments == tuple(len(example.tokens or ()) for example in examples)
    batch = collated([row, examples[0]])
    assert "attention_mask" not in batch
    width = batch["input_ids"].shape[1]
    own = len(examples[0].tokens or ())
    assert batch["position_ids"][1].tolist() == [*range(own), *range(width - own)]
