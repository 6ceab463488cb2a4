"""The loop on a real small Llama: accumulation, resume, early stopping, and numbers that go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.engine import checkpoint
from tlscale.engine.keeper import Place
from tlscale.engine.loop import Trained, Training, train
from tlscale.engine.objectives import task
from tlscale.engine.runtime import Runtime
from tlscale.engine.step import set_modes
from tlscale.errors import TlscaleError
from tlscale.models.likelihood import token_nll
from tlscale.planning.types import (
    Batch,
    Budget,
    Head,
    ParamRule,
    PlannedStage,
    Schedule,
    Stage,
    Term,
    Update,
    World,
)

CPU = World(device="cpu", processes=1, dtype="float32", memory_per_device=None)

VOCABULARY = 32


def llama(dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        attention_dropout=dropout,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def examples(count: int) -> tuple[Example, ...]:
    """Rows of different lengths, of which the second half is trained on."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for index in range(count):
        length = 4 + index % 9
        tokens = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        loss = [position >= length // 2 for position in range(length)]
        made.append(Example(tokens=tokens, loss=loss, where=f"rows.jsonl:{index + 1}"))
    return tuple(made)


class Heard:
    """Keeps what the loop says."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        self.losses.append(values["loss"])

    def said(self, happened: str, **facts: Any) -> None:
        self.events.append((happened, facts))

    def warn(self, text: str) -> None:
        self.said("warning", text=text)


def training(
    folder: Path,
    *,
    micro: int = 8,
    accumulation: int = 1,
    rows: int = 24,
    validation: int = 0,
    learning_rate: float = 1e-2,
    **budget: Any,
) -> Training:
    limits: dict[str, Any] = {
        "epochs": 2.0, "max_steps": None, "eval_steps": None, "save_steps": None, "logging_steps": 1,
        "early_stopping_patience": None,
    }  # fmt: skip
    stage = Stage(
        name="train",
        starts_from="base",
        source=None,
        rules=(ParamRule(pattern=".*", lr_scale=1.0),),
        adapter=None,
        head=Head(kind="native"),
        objective=(Term(),),
        update=Update(learning_rate=learning_rate, weight_decay=0.1, betas=(0.9, 0.999), max_grad_norm=1.0),
        schedule=Schedule(kind="cosine", warmup_ratio=0.1),
        budget=Budget(**{**limits, **budget}),
        group_by_length=False,
        gradient_checkpointing=False,
    )
    planned = PlannedStage(
        stage=stage,
        decisions=(),
        batch=Batch(micro=micro, accumulation=accumulation, world=1),
        trainable=0,
        total=0,
        exact=False,
        steps=None,
        memory=(),
    )
    accelerator = Accelerator(cpu=True)
    return Training(
        planned=planned,
        examples=examples(rows),
        validation=examples(validation),
        scales=dict.fromkeys((name for name, _ in llama().named_parameters()), 1.0),
        collate=partial(collate, task="causal-lm", pad_id=0),
        runtime=Runtime(accelerator, accelerator.device, 0, 1, CPU),
        watcher=Heard(),
        place=Place("train", folder, folder / "ledger", folder / "replay", "f"),
        seed=3,
    )


def trained(made: Training, module: nn.Module | None = None) -> tuple[nn.Module, Trained, Heard]:
    module = llama() if module is None else module
    torch.manual_seed(7)
    done = train(module, made)
    assert isinstance(made.watcher, Heard)
    return module, done, made.watcher


@pytest.mark.parametrize(("micro", "accumulation"), [(4, 2), (2, 4), (1, 8)])
def test_accumulation_equals_the_large_batch(tmp_path: Path, micro: int, accumulation: int) -> None:
    large, _, one = trained(training(tmp_path / "a"))
    small, _, many = trained(training(tmp_path / "b", micro=micro, accumulation=accumulation))
    assert many.losses == pytest.approx(one.losses, rel=1e-5)
    for mine, other in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


def test_the_loss_falls_and_the_last_short_batch_counts(tmp_path: Path) -> None:
    _, done, heard = trained(training(tmp_path, rows=20, epochs=10.0, learning_rate=3e-2))
    assert done.steps == 30
    assert heard.losses[-1] < heard.losses[0] / 2
    assert done.tokens == 10 * sum(len(e.tokens or ()) for e in examples(20))


def test_resume_is_bit_equal_with_dropout(tmp_path: Path) -> None:
    straight, _, whole = trained(training(tmp_path / "a"), llama(dropout=0.2))
    first = training(tmp_path / "b", save_steps=2)
    stopping = iter(range(4))

    class Killed(Heard):
        def step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
            super().step(step, steps, values)
            if next(stopping) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(Training(**{**vars(first), "watcher": Killed()}), llama(dropout=0.2))
    torch.manual_seed(99)
    resumed, _, rest = trained(training(tmp_path / "b", save_steps=2), llama(dropout=0.2))
    facts = {"stage": "train", "step": 2, "checkpoint": "step-000002", "lost_steps": 1}
    assert rest.events[0] == ("resumed", {**facts, "processes_before": 1})
    assert rest.losses == whole.losses[2:]
    for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_only_whole_checkpoints_of_this_plan_are_used(tmp_path: Path) -> None:
    trained(training(tmp_path, save_steps=2))
    newest = checkpoint.newest(tmp_path, "f").folder
    assert newest is not None
    assert newest.name == "step-000006"
    assert len(list(tmp_path.glob("step-*"))) == 2
    (newest / "weights.safetensors").write_bytes(b"cut short")
    found = checkpoint.newest(tmp_path, "f")
    assert found.folder == tmp_path / "step-000004"
    assert found.passed_over == ("step-000006: weights.safetensors has 9 bytes, not 24,904",)
    assert checkpoint.newest(tmp_path, "another plan").folder is None
    (tmp_path / "step-000004" / "manifest.json").unlink()
    assert checkpoint.newest(tmp_path, "f").folder is None


def test_early_stopping_ends_with_the_best_weights(tmp_path: Path) -> None:
    made = training(
        tmp_path,
        rows=8,
        validation=24,
        epochs=60.0,
        learning_rate=5e-2,
        eval_steps=1,
        early_stopping_patience=3,
    )
    module, done, heard = trained(made)
    losses = [facts["loss"] for kind, facts in heard.events if kind == "validated"]
    assert done.stopped_early
    assert len(losses) == done.steps < 60
    assert min(losses[-3:]) > min(losses)
    from tlscale.engine.step import mean_objective

    now = mean_objective(
        module, made.validation, [(1.0, task)], collate=made.collate, runtime=made.runtime, size=8
    )
    assert now == pytest.approx(min(losses), rel=1e-6)


def test_a_loss_that_is_no_number_names_the_rows(tmp_path: Path) -> None:
    module = llama()
    with torch.no_grad():
        module.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TlscaleError, match=r"the loss became nan.*rows\.jsonl:"):
        trained(training(tmp_path), module)


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TlscaleError, match="no training examples"):
        trained(training(tmp_path, rows=0))


@torch.no_grad()
def test_token_loss_equals_transformers_own() -> None:
    module = llama().eval()
    batch = collate(examples(5), task="causal-lm", pad_id=0)
    wanted = module(**batch).loss
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    losses = token_nll(module(**inputs).logits, batch["labels"])
    assert float(losses.sum()) / task.count({"train": batch}) == pytest.approx(float(wanted), rel=1e-6)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    module[1].requires_grad_(False)
    set_modes(module)
    before = module[1].running_mean.clone(), module[2].running_mean.clone()
    module(torch.randn(4, 1, 3, 3) + 5)
    assert torch.equal(module[1].running_mean, before[0])
    assert not torch.equal(module[2].running_mean, before[1])
