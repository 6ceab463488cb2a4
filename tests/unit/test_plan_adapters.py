"""Adapter sizes equal what PEFT itself builds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_config, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tlscale.errors import PlanError
from tlscale.planning.adapters import adapter_size
from tlscale.planning.facts import read_facts
from tlscale.planning.types import Adapter, Facts
from tlscale.recipe.types import Model

pytestmark = [
    # PEFT 0.21 still reads an attribute that transformers 5.23 has renamed
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    # GPT-2 stores its matrices transposed, which PEFT notices by itself
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
LLAMA = {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 64, "n_positions": 40},
    "bert": SMALL,
    "roberta": SMALL,
    "distilbert": {
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 3,
        "n_heads": 4,
        "vocab_size": 64,
        "max_position_embeddings": 40,
    },
}
DECODERS = ("llama", "qwen3", "gpt2")


def make(kind: str) -> Any:
    config = AutoConfig.for_model(kind, **CONFIGS[kind])
    if kind in DECODERS:
        return AutoModelForCausalLM.from_config(config)
    config.id2label = {0: "no", 1: "perhaps", 2: "yes"}
    return AutoModelForSequenceClassification.from_config(config)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def read(kind: str) -> Facts:
        folder: Path = tmp_path_factory.mktemp(kind)
        make(kind).save_pretrained(folder)
        decodes = kind in DECODERS
        task: Any = "causal-lm" if decodes else "sequence-classification"
        model = Model(model_name_or_path=str(folder), task=task)
        return read_facts(model, labels=() if decodes else ("no", "perhaps", "yes"), offline=True)

    return read


def trained_by_peft(kind: str, peft_type: str, fields: dict[str, Any]) -> int:
    """Trainable parameters of the real thing, the classification head's copy left out."""
    task = "CAUSAL_LM" if kind in DECODERS else "SEQ_CLS"
    model = get_peft_model(
        make(kind), get_peft_config({"peft_type": peft_type, "task_type": task, **fields})
    )
    heads = ("classifier", "score")
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        # AdaLoRA keeps its rank counts as parameters that never train
        if p.requires_grad and "ranknum" not in name and not any(f"{head}." in name for head in heads)
    )


ALL = "all-linear"
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "LORA", {}),
    ("llama", "LORA", {"r": 4, "use_rslora": True, "target_modules": ALL}),
    ("llama", "LORA", {"r": 4, "use_dora": True, "target_modules": ALL}),
    (
        "llama",
        "LORA",
        {"target_modules": ["q_proj", "mlp.down_proj"], "exclude_modules": ["layers.1.mlp.down_proj"]},
    ),
    ("llama", "LORA", {"target_modules": r".*layers\.[02]\..*(gate|up)_proj"}),
    ("llama", "LORA", {"target_modules": r"model\.layers\.0\.self_attn\.q_proj"}),
    ("llama", "LORA", {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0, 2]}),
    ("llama", "LORA", {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}),
    ("llama", "LORA", {"r": 8, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}}),
    ("llama", "LORA", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    ("llama", "LORA", {"target_modules": ["q_proj", "lm_head"]}),
    ("qwen3", "LORA", {"r": 4, "target_modules": ALL}),
    ("gpt2", "LORA", {}),
    ("gpt2", "LORA", {"target_modules": ALL, "bias": "all"}),
    ("gpt2", "LORA", {"target_modules": ["c_attn"], "bias": "lora_only"}),
    ("bert", "LORA", {}),
    ("bert", "LORA", {"target_modules": ALL}),
    ("bert", "LORA", {"target_modules": ["query"], "bias": "all"}),
    ("roberta", "LORA", {"target_modules": ALL, "use_dora": True}),
    ("distilbert", "LORA", {"target_modules": ALL, "modules_to_save": ["pre_classifier"]}),
    ("distilbert", "LORA", {"target_modules": ["q_lin", "ffn.lin1"]}),
    ("llama", "ADALORA", {"total_step": 10, "init_r": 6}),
    ("bert", "ADALORA", {"total_step": 10}),
    ("roberta", "ADALORA", {"total_step": 10}),
    ("llama", "IA3", {}),
    ("gpt2", "IA3", {}),
    ("bert", "IA3", {}),
    ("llama", "IA3", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    ("llama", "PROMPT_TUNING", {"num_virtual_tokens": 5}),
    ("bert", "PROMPT_TUNING", {"num_virtual_tokens": 5}),
    ("llama", "PREFIX_TUNING", {"num_virtual_tokens": 5}),
    ("qwen3", "PREFIX_TUNING", {"num_virtual_tokens": 5}),
    ("gpt2", "PREFIX_TUNING", {"num_virtual_tokens": 5}),
    (
        "gpt2",
        "PREFIX_TUNING",
        {"num_virtual_tokens": 5, "prefix_projection": True, "encoder_hidden_size": 20},
    ),
    ("gpt2", "P_TUNING", {"num_virtual_tokens": 5}),
    (
        "gpt2",
        "P_TUNING",
        {"num_virtual_tokens": 5, "encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 12},
    ),
]


@pytest.mark.parametrize(("kind", "peft_type", "fields"), CASES)
def test_size_is_what_peft_builds(kind: str, peft_type: str, fields: dict[str, Any], facts: Any) -> None:
    counted, exact = adapter_size(Adapter(peft_type=peft_type, fields=fields), facts(kind))
    assert exact
    assert counted == trained_by_peft(kind, peft_type, fields)


def test_methods_without_a_formula_are_estimated(facts: Any) -> None:
    counted, exact = adapter_size(Adapter(peft_type="VERA", fields={}), facts("llama"))
    assert counted > 0
    assert not exact


def test_targets_that_match_nothing_name_the_nearest(facts: Any) -> None:
    adapter = Adapter(peft_type="LORA", fields={"target_modules": ["q_projj"]})
    with pytest.raises(
        PlanError, match=r"q_projj matches no layer; did you mean q_proj.*layers there: down_proj"
    ):
        adapter_size(adapter, facts("llama"))


def test_an_architecture_without_a_default_asks_for_targets(facts: Any) -> None:
    with pytest.raises(PlanError, match=r"PEFT has no default for distilbert.*k_lin"):
        adapter_size(Adapter(peft_type="LORA", fields={}), facts("distilbert"))
