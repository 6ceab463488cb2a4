"""Facts read from files equal the real models' parameters, and broken files are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from tlscale.errors import PlanError
from tlscale.models.names import canonical
from tlscale.planning.facts import read_facts
from tlscale.recipe.types import Model

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 40,
}
DECODER = {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": False}
IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": {**DECODER, "head_dim": 16},
    "gemma2": {**DECODER, "head_dim": 8, "tie_word_embeddings": True},
    "gpt_neox": {**SMALL, "tie_word_embeddings": False},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 40},
    "bert": SMALL,
    "roberta": SMALL,
    "electra": {**SMALL, "embedding_size": 32},
    "albert": {**SMALL, "embedding_size": 16},
    "deberta-v2": SMALL,
    "modernbert": {**SMALL, **dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id"), 0)},
    "mpnet": SMALL,
    "distilbert": {
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 4,
        "vocab_size": 64,
        "max_position_embeddings": 40,
    },
    "vit": IMAGE,
    "dinov2": {**IMAGE, "mlp_ratio": 2},
    "swin": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "image_size": 32,
        "patch_size": 4,
        "window_size": 2,
    },
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {},
}
TEXT_CLASSIFIERS = [
    "llama mistral qwen2 qwen3 gemma2 gpt_neox gpt2 bert roberta electra deberta-v2 mpnet distilbert"
][0].split()
CAUSAL = "llama mistral qwen2 qwen3 gemma2 gpt_neox gpt2".split()
IMAGES = "vit dinov2 swin convnext resnet mobilenet_v1 mobilenet_v2".split()
AUTO = {
    "causal-lm": AutoModelForCausalLM,
    "masked-lm": AutoModelForMaskedLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
LABELS = ("no", "perhaps", "yes")
LANGUAGE = ("causal-lm", "masked-lm")
MASKED = "albert bert deberta-v2 distilbert electra modernbert mpnet roberta".split()


def make(kind: str, task: str, classes: int = 3, **changes: Any) -> Any:
    config = AutoConfig.for_model(kind, **{**CONFIGS[kind], **changes})
    if task not in LANGUAGE:
        config.id2label = {i: str(i) for i in range(classes)}
        config.label2id = {str(i): i for i in range(classes)}
    return AUTO[task].from_config(config)


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    names = canonical(model)
    return {names[name]: tuple(p.shape) for name, p in model.named_parameters()}


def facts_of(folder: Path, task: Any, labels: tuple[str, ...] = LABELS, **model: Any) -> Any:
    labels = () if task in LANGUAGE else labels
    recipe = Model(model_name_or_path=str(folder), task=task, **model)
    return read_facts(recipe, labels=labels, offline=True)


def as_shapes(facts: Any) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in facts.tensors}


PAIRS = (
    [(kind, "causal-lm") for kind in CAUSAL]
    + [(kind, "masked-lm") for kind in MASKED]
    + [(kind, "sequence-classification") for kind in TEXT_CLASSIFIERS]
    + [(kind, "image-classification") for kind in IMAGES]
)


@pytest.mark.parametrize(("kind", "task"), PAIRS, ids=lambda value: value)
def test_facts_are_the_models_own_parameters(kind: str, task: str, tmp_path: Path) -> None:
    model = make(kind, task)
    model.save_pretrained(tmp_path)
    facts = facts_of(tmp_path, task)
    assert as_shapes(facts) == shapes(model)
    assert not facts.head_is_new
    assert facts.origin == "safetensors"


@pytest.mark.parametrize("kind", [*TEXT_CLASSIFIERS, *IMAGES])
def test_a_head_of_another_size_is_replaced(kind: str, tmp_path: Path) -> None:
    task = "image-classification" if kind in IMAGES else "sequence-classification"
    make(kind, task, classes=7).save_pretrained(tmp_path)
    facts = facts_of(tmp_path, task)
    assert as_shapes(facts) == shapes(make(kind, task))
    assert facts.head_is_new


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "roberta", "distilbert", "vit", "mobilenet_v1"])
def test_a_head_is_added_to_a_bare_backbone(kind: str, tmp_path: Path) -> None:
    task = "image-classification" if kind in IMAGES else "sequence-classification"
    AutoModel.from_config(AutoConfig.for_model(kind, **CONFIGS[kind])).save_pretrained(tmp_path)
    facts = facts_of(tmp_path, task)
    assert as_shapes(facts) == shapes(make(kind, task))
    assert facts.head_is_new


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_config_alone_gives_the_same_language_model(kind: str, tmp_path: Path) -> None:
    model = make(kind, "causal-lm")
    model.config.save_pretrained(tmp_path)
    facts = facts_of(tmp_path, "causal-lm")
    assert as_shapes(facts) == shapes(model)
    assert facts.origin == "config"


@pytest.mark.parametrize("kind", MASKED)
def test_a_head_for_hidden_tokens_is_added_or_is_apart(kind: str, tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model(kind, **CONFIGS[kind])).save_pretrained(tmp_path / "bare")
    facts = facts_of(tmp_path / "bare", "masked-lm")
    assert as_shapes(facts) == shapes(make(kind, "masked-lm"))
    assert facts.head_is_new
    apart = make(kind, "masked-lm", tie_word_embeddings=False)
    apart.save_pretrained(tmp_path / "apart")
    facts = facts_of(tmp_path / "apart", "masked-lm")
    assert as_shapes(facts) == shapes(apart)
    assert not facts.head_is_new


def test_a_head_for_hidden_tokens_is_left_out_of_a_classifier(tmp_path: Path) -> None:
    make("bert", "masked-lm").save_pretrained(tmp_path)
    facts = facts_of(tmp_path, "sequence-classification")
    assert as_shapes(facts) == shapes(make("bert", "sequence-classification"))
    assert "head.cls.predictions.bias" in facts.left_out
    assert facts_of(tmp_path, "masked-lm").left_out == ()


def test_a_decoder_finds_no_hidden_tokens(tmp_path: Path) -> None:
    make("llama", "causal-lm").save_pretrained(tmp_path)
    with pytest.raises(PlanError, match="llama is not known to find hidden tokens; known: albert, bert"):
        facts_of(tmp_path, "masked-lm")


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "vit", "llama", "gpt2"])
def test_config_alone_gives_the_same_classifier(kind: str, tmp_path: Path) -> None:
    task = "image-classification" if kind in IMAGES else "sequence-classification"
    model = make(kind, task)
    model.config.save_pretrained(tmp_path)
    assert as_shapes(facts_of(tmp_path, task)) == shapes(model)


def test_another_tasks_head_is_left_out(tmp_path: Path) -> None:
    make("llama", "causal-lm").save_pretrained(tmp_path)
    names = as_shapes(facts_of(tmp_path, "sequence-classification"))
    assert "head.score.weight" in names
    assert not any("lm_head" in name for name in names)
    embedding = as_shapes(facts_of(tmp_path, "sentence-embedding"))
    assert not any(name.startswith("head.") for name in embedding)


def test_a_classifier_is_no_language_model(tmp_path: Path) -> None:
    make("llama", "sequence-classification").save_pretrained(tmp_path)
    with pytest.raises(PlanError, match=r"no output layer \(lm_head.weight\)"):
        facts_of(tmp_path, "causal-lm")


def test_a_tied_output_layer_is_listed_once(tmp_path: Path) -> None:
    model = make("llama", "causal-lm", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    facts = facts_of(tmp_path, "causal-lm")
    assert sum(t.size for t in facts.tensors) == sum(p.numel() for p in model.parameters())


def test_shards_are_read_like_one_file(tmp_path: Path) -> None:
    model = make("qwen3", "causal-lm")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert as_shapes(facts_of(tmp_path, "causal-lm")) == shapes(model)
    next(tmp_path.glob("model-00002-*.safetensors")).unlink()
    with pytest.raises(PlanError, match=r"model-00002-of-.*which is not in the folder"):
        facts_of(tmp_path, "causal-lm")


def test_experts_are_counted_as_they_are_loaded(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "qwen3_moe", **DECODER, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    assert as_shapes(facts_of(tmp_path, "causal-lm")) == shapes(model)


def test_dtype_and_architecture(tmp_path: Path) -> None:
    make("qwen3", "causal-lm").to(torch.bfloat16).save_pretrained(tmp_path)
    facts = facts_of(tmp_path, "causal-lm")
    assert {t.dtype for t in facts.tensors} == {"BF16"}
    a = facts.architecture
    assert (a.hidden_size, a.intermediate_size, a.layers, a.heads, a.kv_heads, a.head_dim) == (
        32,
        48,
        2,
        4,
        2,
        16,
    )
    assert (a.vocab_size, a.max_length, a.model_type) == (64, 40, "qwen3")


def test_real_checkpoints(data_root: Path) -> None:
    stories = facts_of(data_root / "stories260k", "causal-lm")
    assert sum(t.size for t in stories.tensors) == 260_032
    images = facts_of(data_root / "mobilenet_v1_0.25_224", "image-classification")
    real = AutoModelForImageClassification.from_pretrained(
        data_root / "mobilenet_v1_0.25_224", num_labels=3, ignore_mismatched_sizes=True
    )
    assert as_shapes(images) == shapes(real)
    assert images.architecture.hidden_size == 256


def test_a_misspelt_folder_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "tiny-llama").mkdir()
    with pytest.raises(PlanError, match=r"tiny-lama: no such folder; did you mean .*tiny-llama"):
        facts_of(tmp_path / "tiny-lama", "causal-lm")
    with pytest.raises(PlanError, match=r"has no config.json"):
        facts_of(tmp_path / "tiny-llama", "causal-lm")


def test_an_unknown_builtin_lists_what_there_is() -> None:
    with pytest.raises(PlanError, match=r"no built-in model nothing"):
        read_facts(Model(model_name_or_path="builtin:nothing", task="causal-lm"), labels=(), offline=True)


def test_a_hub_model_that_is_not_cached_is_refused_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PlanError, match=r"nobody/nothing: no such folder, not in the Hub cache"):
        read_facts(Model(model_name_or_path="nobody/nothing", task="causal-lm"), labels=(), offline=True)


def write_header(path: Path, header: object, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(0, 16, [5])}, "needs 20 bytes and has 16"),
        ({"a": entry(0, 16, [4]), "b": entry(8, 24, [4])}, "b overlaps the tensor before it"),
        ({"a": entry(0, 16, [4]), "b": entry(20, 36, [4])}, "b leaves a hole before it"),
        ({"a": entry(0, 80, [20])}, "take 80 bytes and the file holds 48"),
        ({"a": entry(0, 16, [4])}, "take 16 bytes and the file holds 48"),
        ({"a": entry(0, 16, [-4])}, "malformed shape"),
        ({"a": entry(0, 16, [4], "F33")}, "no dtype that is known"),
        (["a"], "not a JSON object"),
        (b"{", "not JSON"),
    ],
)
def test_lying_headers_are_refused(header: object, message: str, tmp_path: Path) -> None:
    make("llama", "causal-lm").config.save_pretrained(tmp_path)
    write_header(tmp_path / "model.safetensors", header, bytes(48))
    with pytest.raises(PlanError, match=message):
        facts_of(tmp_path, "causal-lm")


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 1 << 60) + b"{}"])
def test_cut_files_are_refused(content: bytes, tmp_path: Path) -> None:
    make("llama", "causal-lm").config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(PlanError, match=r"announces a header|not JSON"):
        facts_of(tmp_path, "causal-lm")


def test_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    make("llama", "causal-lm").config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(PlanError, match=r"not in safetensors.*save_pretrained"):
        facts_of(tmp_path, "causal-lm")
    assert facts_of(tmp_path, "causal-lm", init="scratch").origin == "config"


def test_broken_configs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama",\n "hidden_size": }')
    with pytest.raises(PlanError, match=r"config.json:2: not JSON"):
        facts_of(tmp_path, "causal-lm")
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    with pytest.raises(PlanError, match=r"no model_type"):
        facts_of(tmp_path, "causal-lm")
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(PlanError, match=r"whisper can't be planned from its config alone"):
        facts_of(tmp_path, "causal-lm")
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}'
    )
    with pytest.raises(PlanError, match=r"already quantized .gptq"):
        facts_of(tmp_path, "causal-lm")


def test_an_index_may_not_leave_its_folder(tmp_path: Path) -> None:
    make("llama", "causal-lm").config.save_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "inside.safetensors")
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PlanError, match=r"not a safetensors file beside it"):
        facts_of(tmp_path, "causal-lm")
