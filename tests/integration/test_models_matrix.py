"""Every kind of result of every kind of model: trained, saved, verified, reloaded equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.models_kit import (
    CPU,
    FREEZE_ALL,
    PEFT_RULES,
    POOLED,
    TRAIN_ALL,
    TRAIN_HEAD,
    Kit,
    kit_for,
    make_model,
    train,
)
from tlscale.errors import PlanError
from tlscale.models import artifact
from tlscale.models.names import transformers_model
from tlscale.models.verify import verify
from tlscale.planning.types import Adapter, Head, ParamRule

LM, TEXT, IMAGES, PAIRS = (
    "causal-lm",
    "sequence-classification",
    "image-classification",
    "sentence-embedding",
)
ADALORA = {"init_r": 6, "target_r": 3, "tinit": 1, "tfinal": 2, "deltaT": 1}
METHODS: dict[str, Adapter] = {
    "lora": Adapter(peft_type="LORA", fields={"r": 4, "target_modules": "all-linear"}),
    "dora": Adapter(peft_type="LORA", fields={"r": 4, "use_dora": True, "target_modules": "all-linear"}),
    "rslora": Adapter(peft_type="LORA", fields={"r": 4, "use_rslora": True}),
    "pissa": Adapter(peft_type="LORA", fields={"r": 4, "init_lora_weights": "pissa"}),
    "bias": Adapter(peft_type="LORA", fields={"r": 4, "bias": "all"}),
    "embeddings": Adapter(peft_type="LORA", fields={"r": 4, "modules_to_save": ["embed_tokens"]}),
    "tied": Adapter(
        peft_type="LORA",
        fields={"r": 4, "target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    ),
    "ia3": Adapter(peft_type="IA3", fields={}),
    "ia3-images": Adapter(
        peft_type="IA3", fields={"target_modules": ["q_proj", "fc2"], "feedforward_modules": ["fc2"]}
    ),
    "adalora": Adapter(peft_type="ADALORA", fields=dict(ADALORA)),
    "adalora-images": Adapter(
        peft_type="ADALORA", fields={**ADALORA, "target_modules": ["q_proj", "v_proj"]}
    ),
    "prompt": Adapter(peft_type="PROMPT_TUNING", fields={"num_virtual_tokens": 4}),
    "prefix": Adapter(peft_type="PREFIX_TUNING", fields={"num_virtual_tokens": 4}),
    "p-tuning": Adapter(peft_type="P_TUNING", fields={"num_virtual_tokens": 4, "encoder_hidden_size": 8}),
    "convolutions": Adapter(
        peft_type="LORA", fields={"r": 4, "target_modules": r".*layer\.\d*[13579]\.convolution"}
    ),
}
MODELS = {"llama": LM, "llama-tied": LM, "bert": TEXT, "vit": IMAGES, "mobilenet": IMAGES}
ADAPTED = [
    *(("llama", LM, m) for m in ("lora", "dora", "rslora", "pissa", "embeddings", "ia3", "adalora")),
    *(("llama", LM, m) for m in ("prompt", "prefix", "p-tuning")),
    *(("llama-tied", LM, m) for m in ("lora", "tied")),
    *(("bert", TEXT, m) for m in ("lora", "dora", "bias", "ia3", "adalora", "prompt", "prefix")),
    *(("llama", TEXT, m) for m in ("lora", "dora", "ia3", "adalora", "prefix")),
    *(("bert", PAIRS, m) for m in ("lora", "dora", "ia3", "adalora", "prompt", "prefix")),
    *(("vit", IMAGES, m) for m in ("lora", "dora", "ia3-images", "adalora-images")),
    ("mobilenet", IMAGES, "convolutions"),
]
WHOLE = [*MODELS.items(), ("llama", TEXT), ("bert", PAIRS)]


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: make_model(kind, root / kind) for kind in MODELS}


def prove(kit: Kit, folder: Path, kind: str) -> None:
    """Trains, saves, verifies with and without the live model, and compares logits by hand."""
    torch.manual_seed(0)
    module = kit.applied()
    initial = artifact.fingerprints(module)
    inputs = {name: value for name, value in kit.batch().items() if name != "labels"}
    precision = getattr(torch, kit.world.dtype)
    untrained = artifact.forward(module, inputs, precision)
    train(module, kit)
    trained = artifact.forward(module, inputs, precision)
    assert (trained - untrained).abs().max() > 1e-4
    kit.save(module, folder, initial)
    report = verify(folder, model=kit.model, facts=kit.facts, world=kit.world, live=module)
    assert report.problems == ()
    assert (report.kind, report.tensors) == (kind, len(initial))
    assert report.moved == report.tensors > 0
    later = verify(folder, model=kit.model, facts=kit.facts, world=kit.world)
    assert later.problems == ()
    loaded = artifact.load(folder, model=kit.model, facts=kit.facts, world=kit.world)
    difference = artifact.forward(loaded, inputs, precision) - trained
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize(("kind", "task", "method"), ADAPTED)
def test_adapters(bases: dict[str, Path], tmp_path: Path, kind: str, task: str, method: str) -> None:
    rules = PEFT_RULES if task in (TEXT, IMAGES) else (FREEZE_ALL,)
    kit = kit_for(bases[kind], task, adapter=METHODS[method], rules=rules)
    prove(kit, tmp_path / "out", "adapter")


@pytest.mark.parametrize(("kind", "task"), WHOLE)
def test_full(bases: dict[str, Path], tmp_path: Path, kind: str, task: str) -> None:
    prove(kit_for(bases[kind], task, rules=(TRAIN_ALL,)), tmp_path / "out", "checkpoint")


@pytest.mark.parametrize(("kind", "task"), WHOLE)
def test_partial(bases: dict[str, Path], tmp_path: Path, kind: str, task: str) -> None:
    top = r"layer\.2\d\..*" if kind == "mobilenet" else r"(encoder\.layer|layers)\.1\..*"
    head = (TRAIN_HEAD,) if task in (TEXT, IMAGES) else ()
    rules = (*head, ParamRule(pattern=top, lr_scale=0.5), FREEZE_ALL)
    prove(kit_for(bases[kind], task, rules=rules), tmp_path / "out", "checkpoint")


@pytest.mark.parametrize(("kind", "task"), [(k, t) for k, t in WHOLE if t in (TEXT, IMAGES)])
def test_a_head_of_our_own(bases: dict[str, Path], tmp_path: Path, kind: str, task: str) -> None:
    prove(kit_for(bases[kind], task, rules=PEFT_RULES, head=POOLED), tmp_path / "head", "head")
    hidden = Head(kind="pooled", hidden=8, normalize=False)
    prove(kit_for(bases[kind], task, rules=(TRAIN_ALL,), head=hidden), tmp_path / "whole", "checkpoint")


def test_a_head_over_frozen_features_begins_at_zero(bases: dict[str, Path], tmp_path: Path) -> None:
    for hidden in (0, 8):
        head = Head(kind="pooled", hidden=hidden, start="zeros")
        kit = kit_for(bases["bert"], TEXT, rules=PEFT_RULES, head=head)
        start = kit.base().state_dict()
        assert not start["head.output.weight"].any()
        assert not start["head.output.bias"].any()
        prove(kit, tmp_path / str(hidden), "head")


def test_a_head_of_our_own_over_an_adapter(bases: dict[str, Path], tmp_path: Path) -> None:
    kit = kit_for(bases["llama"], TEXT, rules=PEFT_RULES, head=POOLED, adapter=METHODS["lora"])
    prove(kit, tmp_path / "out", "adapter")
    assert {p.name for p in (tmp_path / "out").glob("*.safetensors")} == {
        "adapter_model.safetensors",
        "head.safetensors",
        "probe.safetensors",
    }


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
@pytest.mark.parametrize(("kind", "task"), [("llama", LM), ("bert", TEXT)])
def test_quantized_bases(
    bases: dict[str, Path], tmp_path: Path, kind: str, task: str, quantization: str
) -> None:
    rules = PEFT_RULES if task == TEXT else (FREEZE_ALL,)
    kit = kit_for(bases[kind], task, adapter=METHODS["lora"], rules=rules, quantization=quantization)
    prove(kit, tmp_path / "out", "adapter")


def test_half_precision_trains_in_float32(bases: dict[str, Path], tmp_path: Path) -> None:
    half = CPU.model_copy(update={"dtype": "bfloat16"})
    kit = kit_for(bases["bert"], TEXT, adapter=METHODS["lora"], rules=PEFT_RULES, world=half)
    module = kit.applied()
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in module.parameters() if not p.requires_grad} == {torch.bfloat16}
    initial = artifact.fingerprints(module)
    with torch.autocast("cpu", torch.bfloat16):
        train(module, kit)
    kit.save(module, tmp_path / "out", initial)
    report = verify(tmp_path / "out", model=kit.model, facts=kit.facts, world=half, live=module)
    assert report.problems == ()
    assert report.tolerance == 2e-2


@pytest.mark.parametrize(
    ("kind", "task"), [("llama", LM), ("bert", TEXT), ("vit", IMAGES), ("bert", PAIRS)]
)
def test_recomputed_activations_give_the_same_gradients(
    bases: dict[str, Path], kind: str, task: str
) -> None:
    rules = PEFT_RULES if task in (TEXT, IMAGES) else (FREEZE_ALL,)
    found: list[dict[str, Any]] = []
    for checkpointing in (False, True):
        kit = kit_for(bases[kind], task, adapter=METHODS["lora"], rules=rules, checkpointing=checkpointing)
        torch.manual_seed(0)
        module = kit.applied()
        train(module, kit, steps=2)
        found.append({name: p.detach() for name, p in module.named_parameters() if p.requires_grad})
        if checkpointing and task != IMAGES:
            # input gradients would walk every frozen block in the backward pass
            words = transformers_model(module).get_input_embeddings()
            assert not words(torch.tensor([3])).requires_grad
    plain, recomputed = found
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_recomputing_is_refused_where_the_model_can_not(bases: dict[str, Path]) -> None:
    with pytest.raises(PlanError, match=r"train\.gradient_checkpointing"):
        kit_for(bases["mobilenet"], IMAGES, checkpointing=True).applied()


REFUSED: list[tuple[str, str, Adapter, str]] = [
    ("llama", TEXT, METHODS["prompt"], "can't tell padding from text"),
    ("vit", IMAGES, METHODS["prompt"], "is for text"),
    (
        "llama-tied",
        LM,
        Adapter(peft_type="LORA", fields={"modules_to_save": ["embed_tokens"]}),
        "ensure_weight_tying: true",
    ),
    ("llama", LM, Adapter(peft_type="LORA", fields={"r": 0}), "PEFT refuses the adapter"),
    ("llama", LM, Adapter(peft_type="LOHA", fields={"target_modules": ["nowhere"]}), "nowhere"),
]


@pytest.mark.parametrize(("kind", "task", "adapter", "message"), REFUSED)
def test_adapters_that_would_mislead_are_refused(
    bases: dict[str, Path], kind: str, task: str, adapter: Adapter, message: str
) -> None:
    rules = PEFT_RULES if task in (TEXT, IMAGES) else (FREEZE_ALL,)
    with pytest.raises(PlanError, match=message):
        kit_for(bases[kind], task, adapter=adapter, rules=rules).applied()


def test_a_plan_that_counted_otherwise_is_an_error(bases: dict[str, Path]) -> None:
    kit = kit_for(bases["llama"], LM, adapter=METHODS["lora"], rules=(FREEZE_ALL,))
    wrong = kit.planned.model_copy(update={"trainable": kit.planned.trainable + 1})
    with pytest.raises(PlanError, match="weights train, planned"):
        Kit(kit.model, kit.facts, wrong).applied()


def test_a_parameter_without_a_decision_is_an_error(bases: dict[str, Path]) -> None:
    kit = kit_for(bases["llama"], LM)
    rules = (ParamRule(pattern=r"layers\..*", lr_scale=1.0),)
    stage = kit.planned.stage.model_copy(update={"rules": rules})
    decisions = tuple(d for d in kit.planned.decisions if d.name.startswith("layers."))
    planned = kit.planned.model_copy(update={"stage": stage, "decisions": decisions})
    with pytest.raises(PlanError, match=r"no rule decides on 3 parameters: .*embed_tokens\.weight"):
        Kit(kit.model, kit.facts, planned).applied()
