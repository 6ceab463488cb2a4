"""Live names to canonical ones, for bare models, PEFT models and models with a head of our own."""

from __future__ import annotations

from typing import Any

import pytest
from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    ViTConfig,
)

from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.models.names import canonical
from tlscale.models.quiet import quiet

SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
LLAMA = LlamaConfig(**SMALL, vocab_size=9)
TIED = LlamaConfig(**SMALL, vocab_size=9, tie_word_embeddings=True)
BERT = BertConfig(**SMALL, vocab_size=9)


def values(module: nn.Module) -> set[str]:
    names = canonical(module)
    assert list(names) == [name for name, _ in module.named_parameters()]
    return set(names.values())


def test_the_backbones_prefix_is_left_out_and_the_rest_is_head() -> None:
    found = values(AutoModelForCausalLM.from_config(LLAMA))
    assert {"embed_tokens.weight", "layers.0.self_attn.q_proj.weight", "norm.weight"} <= found
    assert {name for name in found if name.startswith("head.")} == {"head.lm_head.weight"}


def test_a_tied_output_layer_is_not_listed_twice() -> None:
    assert "head.lm_head.weight" not in values(AutoModelForCausalLM.from_config(TIED))


@pytest.mark.parametrize(
    ("auto", "config", "head"),
    [
        (AutoModelForSequenceClassification, BERT, {"head.classifier.weight", "head.classifier.bias"}),
        (AutoModelForSequenceClassification, LLAMA, {"head.score.weight"}),
        (
            AutoModelForImageClassification,
            ViTConfig(**SMALL, image_size=8, patch_size=4),
            {"head.classifier.weight", "head.classifier.bias"},
        ),
        (AutoModel, BERT, set()),
    ],
)
def test_heads(auto: Any, config: Any, head: set[str]) -> None:
    assert {name for name in values(auto.from_config(config)) if name.startswith("head.")} == head


def test_adapters_own_what_they_add_and_copies_of_heads_bear_the_heads_name() -> None:
    plain = AutoModelForSequenceClassification.from_config(BERT)
    before = values(plain)
    with quiet():
        adapted = get_peft_model(plain, LoraConfig(task_type=TaskType.SEQ_CLS, r=2))
    found = values(adapted)
    names = canonical(adapted)
    assert before <= found
    added = found - before
    assert "adapter.bert.encoder.layer.0.attention.self.query.lora_A.weight" in added
    assert {name for name in added if not name.startswith("adapter.")} == {
        "original.head.classifier.weight",
        "original.head.classifier.bias",
    }
    live = next(name for name, known in names.items() if known == "head.classifier.weight")
    assert ".modules_to_save." in live


def test_copies_of_other_modules_belong_to_the_adapter() -> None:
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, modules_to_save=["embed_tokens", "lm_head"])
    with quiet():
        found = values(get_peft_model(AutoModelForCausalLM.from_config(LLAMA), config))
    assert {"adapter.modules_to_save.embed_tokens.weight", "embed_tokens.weight"} <= found
    assert {"adapter.modules_to_save.head.lm_head.weight", "head.lm_head.weight"} <= found


def test_ia3_and_prompts() -> None:
    with quiet():
        ia3 = get_peft_model(
            AutoModelForCausalLM.from_config(LLAMA), IA3Config(task_type=TaskType.CAUSAL_LM)
        )
    assert {name for name in values(ia3) if name.startswith("adapter.")} == {
        "adapter.model.layers.0.self_attn.k_proj.ia3_l",
        "adapter.model.layers.0.self_attn.v_proj.ia3_l",
        "adapter.model.layers.0.mlp.down_proj.ia3_l",
    }
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    with quiet():
        prompted = get_peft_model(AutoModelForCausalLM.from_config(LLAMA), config)
    assert {name for name in values(prompted) if name.startswith("adapter.")} == {
        "adapter.prompt_encoder.embedding.weight"
    }


def test_a_head_of_our_own_over_an_adapted_backbone() -> None:
    with quiet():
        backbone = get_peft_model(AutoModel.from_config(LLAMA), LoraConfig(r=2, target_modules=["q_proj"]))
    found = values(PooledClassifier(backbone, "last", PooledHead(8, 3, 4), normalize=True))
    assert {name for name in found if name.startswith("head.")} == {
        "head.hidden.weight",
        "head.hidden.bias",
        "head.output.weight",
        "head.output.bias",
    }
    assert "embed_tokens.weight" in found
    assert "adapter.layers.0.self_attn.q_proj.lora_B.weight" in found
