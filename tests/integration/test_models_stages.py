"""A stage that goes on from an earlier one, and results read by plain PEFT and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.integration import minilm
from tests.integration.models_kit import (
    CPU,
    FREEZE_ALL,
    LABELS,
    PEFT_RULES,
    POOLED,
    TRAIN_ALL,
    Kit,
    kit_for,
    make_model,
    train,
)
from tlscale.errors import PlanError
from tlscale.models import adapt, artifact
from tlscale.models.load import load_base, load_processor
from tlscale.models.merge import merge
from tlscale.models.quiet import quiet
from tlscale.models.verify import verify
from tlscale.planning.facts import read_facts
from tlscale.planning.types import Adapter
from tlscale.recipe.types import Model

LORA = Adapter(peft_type="LORA", fields={"r": 4, "target_modules": "all-linear"})
CLASSES = "sequence-classification"


def finished(kit: Kit, folder: Path) -> torch.nn.Module:
    """A trained module, saved to `folder`."""
    module = kit.applied()
    initial = artifact.fingerprints(module)
    train(module, kit)
    kit.save(module, folder, initial)
    return module


def outputs(module: Any, kit: Kit) -> torch.Tensor:
    inputs = {name: value for name, value in kit.batch().items() if name != "labels"}
    with torch.no_grad():
        logits: torch.Tensor = module(**inputs).logits
    return logits


@pytest.mark.parametrize(("kind", "task"), [("llama", "causal-lm"), ("llama-tied", "causal-lm")])
def test_plain_peft_reads_a_language_models_adapter(tmp_path: Path, kind: str, task: str) -> None:
    base = make_model(kind, tmp_path / "base")
    kit = kit_for(base, task, adapter=LORA, rules=(FREEZE_ALL,))
    module = finished(kit, tmp_path / "out")
    with quiet():
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    assert torch.equal(outputs(plain.eval(), kit), outputs(module, kit))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["task_type"] == "CAUSAL_LM"


def test_plain_peft_reads_a_classifiers_adapter_with_its_head(tmp_path: Path) -> None:
    base = make_model("bert", tmp_path / "base")
    kit = kit_for(base, CLASSES, adapter=LORA, rules=PEFT_RULES)
    module = finished(kit, tmp_path / "out")
    with quiet():
        fresh = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
        plain = PeftModel.from_pretrained(fresh, tmp_path / "out")
    assert torch.equal(outputs(plain.eval(), kit), outputs(module, kit))


def test_plain_transformers_reads_a_checkpoint_with_its_labels(tmp_path: Path) -> None:
    kit = kit_for(make_model("bert", tmp_path / "base"), CLASSES, rules=(TRAIN_ALL,))
    module = finished(kit, tmp_path / "out")
    with quiet():
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(outputs(plain.eval(), kit), outputs(module, kit))
    assert tuple(plain.config.id2label.values()) == LABELS


def test_an_adapter_is_continued(tmp_path: Path) -> None:
    kit = kit_for(make_model("bert", tmp_path / "base"), CLASSES, adapter=LORA, rules=PEFT_RULES)
    first = finished(kit, tmp_path / "one")
    second = adapt.apply(kit.base(), kit.planned, task=CLASSES, continue_from=tmp_path / "one")
    assert torch.equal(outputs(second, kit), outputs(first, kit))
    initial = artifact.fingerprints(second)
    assert set(initial) == set(json.loads((tmp_path / "one" / "manifest.json").read_text())["initial"])
    train(second, kit)
    kit.save(second, tmp_path / "two", initial)
    report = verify(tmp_path / "two", model=kit.model, facts=kit.facts, world=CPU, live=second)
    assert report.problems == ()
    assert report.moved == report.tensors


def test_a_continued_adapter_that_stands_still_is_found_out(tmp_path: Path) -> None:
    kit = kit_for(make_model("bert", tmp_path / "base"), CLASSES, adapter=LORA, rules=PEFT_RULES)
    finished(kit, tmp_path / "one")
    second = adapt.apply(kit.base(), kit.planned, task=CLASSES, continue_from=tmp_path / "one")
    kit.save(second, tmp_path / "two", artifact.fingerprints(second))
    report = verify(tmp_path / "two", model=kit.model, facts=kit.facts, world=CPU, live=second)
    assert report.moved == 0
    assert "still at their initial value" in report.problems[0]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_merged_adapter_is_a_base(tmp_path: Path, quantization: str) -> None:
    base = make_model("llama", tmp_path / "base")
    kit = kit_for(base, "causal-lm", adapter=LORA, rules=(FREEZE_ALL,), quantization=quantization)
    module = finished(kit, tmp_path / "one")
    merged = merge(tmp_path / "one", tmp_path / "merged", model=kit.model, facts=kit.facts, world=CPU)
    plain = kit.model.model_copy(update={"model_name_or_path": str(merged), "quantization": "none"})
    new_base = load_base(plain, kit.facts, head=None, world=CPU, seed=0)
    difference = (outputs(new_base, kit) - outputs(module, kit)).abs().max()
    assert difference < (1e-5 if quantization == "none" else 0.5)
    assert not [name for name, _ in new_base.named_parameters() if "lora" in name]


def test_prompts_can_not_be_merged(tmp_path: Path) -> None:
    prompt = Adapter(peft_type="PROMPT_TUNING", fields={"num_virtual_tokens": 2})
    kit = kit_for(make_model("llama", tmp_path / "base"), "causal-lm", adapter=prompt, rules=(FREEZE_ALL,))
    finished(kit, tmp_path / "one")
    with pytest.raises(PlanError, match="no adapter that can be merged"):
        merge(tmp_path / "one", tmp_path / "m", model=kit.model, facts=kit.facts, world=CPU)


def test_a_head_first_and_then_everything(tmp_path: Path) -> None:
    base = make_model("bert", tmp_path / "base")
    probed = kit_for(base, CLASSES, rules=PEFT_RULES, head=POOLED)
    first = finished(probed, tmp_path / "probe")
    model = probed.model.model_copy(update={"model_name_or_path": str(tmp_path / "probe")})
    whole = kit_for(base, CLASSES, rules=(TRAIN_ALL,), head=POOLED)
    second = Kit(model, whole.facts, whole.planned)
    module = second.applied(seed=99)
    assert torch.equal(outputs(module, second), outputs(first, second))
    initial = artifact.fingerprints(module)
    train(module, second)
    second.save(module, tmp_path / "whole", initial)
    report = verify(tmp_path / "whole", model=model, facts=second.facts, world=CPU, live=module)
    assert report.problems == ()


def test_a_checkpoint_is_the_base_of_an_adapter(tmp_path: Path) -> None:
    base = make_model("bert", tmp_path / "base")
    first = finished(kit_for(base, CLASSES, rules=(TRAIN_ALL,)), tmp_path / "one")
    adapted = kit_for(base, CLASSES, adapter=LORA, rules=PEFT_RULES)
    model = adapted.model.model_copy(update={"model_name_or_path": str(tmp_path / "one")})
    second = Kit(model, adapted.facts, adapted.planned)
    assert torch.equal(outputs(second.base(), second), outputs(first, second))
    finished(second, tmp_path / "two")
    assert verify(tmp_path / "two", model=model, facts=second.facts, world=CPU).problems == ()


def real(folder: Path, task: Any, labels: tuple[str, ...] = ()) -> tuple[Model, Any]:
    model = Model(model_name_or_path=str(folder), task=task)
    return model, read_facts(model, labels=labels, offline=True)


def test_stories260k_speaks(data_root: Path) -> None:
    model, facts = real(data_root / "stories260k", "causal-lm")
    module: Any = load_base(model, facts, head=None, world=CPU, seed=0)
    tokenizer = load_processor(model, facts)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    start = tokenizer("<s>Once upon a time", add_special_tokens=False, return_tensors="pt")
    made = module.generate(**start, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert (
        tokenizer.decode(made[0], skip_special_tokens=True)
        .lstrip()
        .startswith("Once upon a time, there was a")
    )


def test_mobilenet_gives_features(data_root: Path) -> None:
    model, facts = real(data_root / "mobilenet_v1_0.25_224", "image-classification", LABELS)
    module: Any = load_base(model, facts, head=POOLED, world=CPU, seed=0)
    processor = load_processor(model, facts)
    noise = torch.randint(0, 256, (40, 50, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    pixels = processor(noise, return_tensors="pt")
    with torch.no_grad():
        features = module.features(**pixels)
    assert features.shape == (1, facts.architecture.hidden_size) == (1, 256)
    assert module(**pixels).logits.shape == (1, 3)
    conv = Adapter(peft_type="LORA", fields={"target_modules": r".*layer\.\d*[13579]\.convolution"})
    kit = kit_for(
        data_root / "mobilenet_v1_0.25_224", "image-classification", adapter=conv, rules=PEFT_RULES
    )
    with pytest.raises(PlanError, match="reads strides off its convolutions"):
        kit.applied()


def test_minilm_knows_what_is_alike() -> None:
    model, facts = real(minilm.folder(), "sentence-embedding")
    module: Any = load_base(model, facts, head=None, world=CPU, seed=0)
    tokenizer = load_processor(model, facts)
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell."]
    with torch.no_grad():
        vectors = module(**tokenizer(texts, padding=True, return_tensors="pt")).embeddings
    one, two, three = torch.nn.functional.normalize(vectors, dim=-1)
    assert vectors.shape == (3, 384)
    assert one @ two > 0.5 > 0.2 > one @ three
