"""Loading bases and processors, whole or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.models_kit import (
    CPU,
    FREEZE_ALL,
    LABELS,
    NATIVE,
    PEFT_RULES,
    POOLED,
    TRAIN_ALL,
    batch_for,
    kit_for,
    loss_of,
    make_model,
)
from tlscale.errors import PlanError
from tlscale.models import quantize
from tlscale.models.load import load_base, load_processor
from tlscale.planning.types import Adapter

LORA = Adapter(peft_type="LORA", fields={"r": 2, "target_modules": "all-linear"})


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replaces tensors of a checkpoint, or removes those set to `None`."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, tensor in change.items():
        tensors.pop(name)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_backbone_parameter_missing_from_the_files_is_named(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm")
    rewrite(tmp_path, {"model.layers.1.mlp.up_proj.weight": None})
    with pytest.raises(PlanError, match=r"1 parameters would start from random.*layers\.1\.mlp\.up_proj"):
        kit.base()


def test_a_backbone_parameter_of_another_shape_is_named(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "sequence-classification")
    rewrite(tmp_path, {"model.norm.weight": torch.ones(5)})
    with pytest.raises(PlanError, match=r"model\.norm\.weight \(\(5,\) in the files, \(32,\) needed\)"):
        kit.base()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm")
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(PlanError, match="the model can't be loaded"):
        kit.base()


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm")
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(PlanError, match="the model can't be loaded"):
        kit.base()


def test_a_new_head_has_the_labels_and_comes_from_the_seed(tmp_path: Path) -> None:
    kit = kit_for(make_model("bert", tmp_path), "sequence-classification")
    torch.manual_seed(123)
    before = torch.rand(1)
    torch.manual_seed(123)
    first: Any = kit.base(seed=1)
    assert torch.equal(torch.rand(1), before), "loading must not touch the caller's random state"
    again, other = kit.base(seed=1), kit.base(seed=2)
    assert first.config.id2label == dict(enumerate(LABELS))
    weight = "classifier.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert torch.equal(
        first.state_dict()["bert.embeddings.word_embeddings.weight"],
        load_file(tmp_path / "model.safetensors")["embeddings.word_embeddings.weight"],
    )


def test_a_decoder_that_classifies_ignores_padding(tmp_path: Path) -> None:
    module = kit_for(make_model("llama", tmp_path), "sequence-classification").base()
    batch = batch_for("sequence-classification")
    together = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    alone = module(input_ids=batch["input_ids"][2:3, :8]).logits
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_scratch_starts_from_the_seed_and_not_from_the_files(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm", init="scratch")
    stored = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    one, same, other = (kit.base(seed).state_dict()["model.embed_tokens.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, stored)


def test_a_checkpoint_without_pooling_layer_may_be_trained_but_not_frozen(tmp_path: Path) -> None:
    make_model("bert", tmp_path)
    rewrite(tmp_path, {"pooler.dense.weight": None, "pooler.dense.bias": None})
    task = "sequence-classification"
    assert kit_for(tmp_path, task, rules=(TRAIN_ALL,)).applied().training is False
    with pytest.raises(PlanError, match=r"pooler\.dense\.bias.*random numbers"):
        kit_for(tmp_path, task, rules=PEFT_RULES, adapter=LORA).applied()
    pooled = kit_for(tmp_path, task, rules=PEFT_RULES, head=POOLED).applied()
    assert not [name for name, _ in pooled.named_parameters() if "pooler" in name]


def test_padding_takes_an_existing_token(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm")
    tokenizer = load_processor(kit.model, kit.facts)
    assert tokenizer.pad_token == "</s>"
    assert len(tokenizer) == kit.facts.architecture.vocab_size
    assert tokenizer.padding_side == "right"


def test_a_chat_template_file_is_used_or_missed(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm")
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}|{% endfor %}")
    model = kit.model.model_copy(update={"chat_template": str(template)})
    rendered = load_processor(model, kit.facts).apply_chat_template(
        [{"role": "user", "content": "w1"}], tokenize=False
    )
    assert rendered == "w1|"
    gone = kit.model.model_copy(update={"chat_template": str(tmp_path / "none.jinja")})
    with pytest.raises(PlanError, match=r"model\.chat_template.*no such file"):
        load_processor(gone, kit.facts)


def test_a_folder_without_tokenizer_says_so(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm")
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(PlanError, match="the tokenizer can't be loaded"):
        load_processor(kit.model, kit.facts)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_quantized_bases_keep_their_size_in_the_count_and_their_head_in_full(
    tmp_path: Path, kind: str
) -> None:
    kit = kit_for(make_model("llama", tmp_path), "sequence-classification", quantization=kind)
    module: Any = kit.base()
    sizes = sum(quantize.size(p) for p in module.parameters())
    assert sizes == sum(tensor.size for tensor in kit.facts.tensors)
    assert not quantize.is_quantized(module.score.weight)
    with pytest.raises(PlanError, match="is quantized and can't be trained"):
        kit.applied()


def test_evaluating_a_four_bit_model_first_leaves_its_gradients_whole(tmp_path: Path) -> None:
    base = make_model("llama", tmp_path, width=64)
    kit = kit_for(base, "causal-lm", quantization="nf4", adapter=LORA, rules=(FREEZE_ALL,))
    found = []
    for evaluated_first in (False, True):
        torch.manual_seed(0)
        module = kit.applied()
        for name, parameter in module.named_parameters():
            if ".lora_B." in name:
                parameter.data.fill_(0.01)
        if evaluated_first:
            with torch.no_grad():
                module(input_ids=kit.batch()["input_ids"])
        loss_of(module.train(), kit.batch()).backward()
        found.append({name: p.grad for name, p in module.named_parameters() if p.requires_grad})
    plain, after = found
    assert all(torch.equal(plain[name], after[name]) for name in plain)


def test_a_convolutional_model_can_not_be_quantized(tmp_path: Path) -> None:
    kit = kit_for(make_model("mobilenet", tmp_path), "image-classification", head=POOLED)
    model = kit.model.model_copy(update={"quantization": "nf4"})
    with pytest.raises(PlanError, match="no linear layer that can be quantized"):
        load_base(model, kit.facts, head=POOLED, world=CPU, seed=0)


def test_precision_follows_the_world(tmp_path: Path) -> None:
    kit = kit_for(make_model("llama", tmp_path), "causal-lm", adapter=LORA, rules=(FREEZE_ALL,))
    half = CPU.model_copy(update={"dtype": "bfloat16"})
    module = load_base(kit.model, kit.facts, head=NATIVE, world=half, seed=0)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
