"""Tiny models made on the spot, and one stage of training on them, for the tests of tlscale.models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    BertConfig,
    LlamaConfig,
    MobileNetV1Config,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessor,
)

from tlscale.models import adapt, artifact
from tlscale.models.load import load_base, load_processor
from tlscale.models.quiet import quiet
from tlscale.planning.adapters import adapter_size
from tlscale.planning.compile import pooled_head
from tlscale.planning.facts import read_facts
from tlscale.planning.rules import decide
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_ALL, TRAIN_HEAD
from tlscale.planning.types import (
    Adapter,
    Batch,
    Budget,
    Facts,
    Head,
    ParamRule,
    PlannedStage,
    Schedule,
    Stage,
    Term,
    Update,
    World,
)
from tlscale.recipe.types import Model

LABELS = ("cat", "dog", "fish")
WORDS = 61
CPU = World(device="cpu", processes=1, dtype="float32", memory_per_device=None)
NATIVE = Head(kind="native")
POOLED = Head(kind="pooled")
PEFT_RULES = (TRAIN_HEAD, FREEZE_ALL)


def make_tokenizer(folder: Path) -> None:
    names = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(WORDS - 3))]
    backend = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    made.save_pretrained(str(folder))


def make_model(kind: str, folder: Path, *, seed: int = 7, width: int = 32) -> Path:
    """Writes a tiny pretrained model of `kind` (llama, llama-tied, bert, vit, mobilenet) to `folder`."""
    torch.manual_seed(seed)
    small: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    if kind.startswith("llama"):
        tied = kind == "llama-tied"
        config: Any = LlamaConfig(
            **small,
            num_key_value_heads=2,
            vocab_size=WORDS,
            tie_word_embeddings=tied,
            max_position_embeddings=64,
        )
        made: Any = AutoModelForCausalLM.from_config(config)
    elif kind == "bert":
        made = AutoModel.from_config(BertConfig(**small, vocab_size=WORDS, max_position_embeddings=64))
    elif kind == "vit":
        made = AutoModelForImageClassification.from_config(ViTConfig(**small, image_size=16, patch_size=8))
    else:
        made = AutoModelForImageClassification.from_config(
            MobileNetV1Config(
                image_size=16, depth_multiplier=0.125, classifier_dropout_prob=0.0, tf_padding=False
            )
        )
        settle(made)
    with quiet():
        made.save_pretrained(str(folder))
    if kind in ("vit", "mobilenet"):
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(str(folder))
    else:
        make_tokenizer(folder)
    return folder


def settle(convolutional: nn.Module) -> None:
    """Gives an untrained network running statistics under which signals survive all its layers."""
    norms = [part for part in convolutional.modules() if isinstance(part, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        convolutional.train()(torch.randn(16, 3, 64, 64))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def batch_for(task: str, *, seed: int = 0, rows: int = 4) -> dict[str, torch.Tensor]:
    """Inputs and labels, right-padded where they are text."""
    noise = torch.Generator().manual_seed(seed)
    if task == "image-classification":
        pixels = torch.randn(rows, 3, 16, 16, generator=noise)
        return {"pixel_values": pixels, "labels": torch.arange(rows) % len(LABELS)}
    tokens = torch.randint(3, WORDS, (rows, 10), generator=noise)
    mask = torch.ones_like(tokens)
    for row in range(1, rows):
        mask[row, 10 - row :] = 0
        tokens[row, 10 - row :] = 2
    batch = {"input_ids": tokens, "attention_mask": mask}
    if task == "causal-lm":
        batch["labels"] = torch.where(mask == 1, tokens, -100)
    elif task == "sequence-classification":
        batch["labels"] = torch.arange(rows) % len(LABELS)
    return batch


def loss_of(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    made: Any = module(**inputs)
    if "labels" not in batch:
        scores = functional.normalize(made.embeddings, dim=-1)
        return functional.cross_entropy(20 * scores @ scores.flip(0).T, torch.arange(len(scores)))
    labels, logits = batch["labels"], made.logits
    if labels.dim() == 2:
        logits = logits[:, logits.shape[1] - labels.shape[1] :]
        return functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])
    return functional.cross_entropy(logits, labels)


@dataclass(frozen=True)
class Kit:
    """A model as a recipe names it, with its facts and one planned stage."""

    model: Model
    facts: Facts
    planned: PlannedStage
    world: World = CPU

    def base(self, seed: int = 0) -> nn.Module:
        head = self.planned.stage.head
        return load_base(self.model, self.facts, head=head, world=self.world, seed=seed)

    def applied(self, seed: int = 0) -> nn.Module:
        return adapt.apply(self.base(seed), self.planned, task=self.model.task)

    def batch(self) -> dict[str, torch.Tensor]:
        return batch_for(self.model.task)

    def save(self, module: nn.Module, folder: Path, initial: dict[str, str]) -> Path:
        return artifact.save(
            module,
            load_processor(self.model, self.facts),
            folder,
            planned=self.planned,
            facts=self.facts,
            model=self.model,
            initial=initial,
            probe={name: value for name, value in self.batch().items() if name != "labels"},
        )


def kit_for(
    folder: Path,
    task: Any,
    *,
    adapter: Adapter | None = None,
    rules: tuple[ParamRule, ...] = (TRAIN_ALL,),
    head: Head = NATIVE,
    world: World = CPU,
    checkpointing: bool = False,
    **model_fields: Any,
) -> Kit:
    """A kit planned as the compiler plans."""
    model = Model(model_name_or_path=str(folder), task=task, **model_fields)
    classifies = task.endswith("classification")
    facts = read_facts(model, labels=LABELS if classifies else (), offline=True)
    tensors = facts.tensors
    if head.kind == "pooled":
        tensors = tuple(t for t in tensors if not t.name.startswith("head."))
        tensors += pooled_head(head, facts.architecture.hidden_size, len(LABELS))
    decisions = decide(tensors, rules)
    trainable = sum(d.size for d in decisions if d.lr_scale is not None)
    total, exact = sum(d.size for d in decisions), facts.origin == "safetensors"
    if adapter is not None:
        added, known = adapter_size(adapter, facts)
        trainable, total, exact = trainable + added, total + added, exact and known
    stage = Stage(
        name="train",
        starts_from="base",
        source=None,
        rules=rules,
        adapter=adapter,
        head=head,
        objective=(Term(),),
        update=Update(learning_rate=1e-2, weight_decay=0.0, betas=(0.9, 0.999), max_grad_norm=1.0),
        schedule=Schedule(kind="constant", warmup_ratio=0.0),
        budget=Budget(
            epochs=1.0,
            max_steps=None,
            eval_steps=None,
            save_steps=None,
            logging_steps=1,
            early_stopping_patience=None,
        ),
        group_by_length=False,
        gradient_checkpointing=checkpointing,
    )
    planned = PlannedStage(
        stage=stage,
        decisions=decisions,
        batch=Batch(micro=4, accumulation=1, world=1),
        trainable=trainable,
        total=total,
        exact=exact,
        steps=20,
        memory=(),
    )
    return Kit(model, facts, planned, world)


def train(module: nn.Module, kit: Kit, steps: int = 3) -> tuple[float, float]:
    """A few AdamW steps; returns the first and the last loss."""
    scales = adapt.lr_scales(module, kit.planned)
    named = dict(module.named_parameters())
    groups = [{"params": [named[name]], "lr": 1e-2 * scale} for name, scale in scales.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    losses = []
    module.train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    for step in range(steps):
        loss = loss_of(module, kit.batch())
        loss.backward()
        optimizer.step()
        adapt.after_step(module, step)
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    module.eval()
    return losses[0], losses[-1]
