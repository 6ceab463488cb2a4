"""Learning rates over a stage: shapes against transformers', and who trains at which step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from tests.unit.facts import LABELS, llama
from tests.unit.test_engine_loop import llama as live_llama
from tests.unit.test_engine_loop import training
from tests.unit.test_strategies_contract import compiled
from tlscale.engine.loop import train
from tlscale.engine.optim import make_optimizer, make_schedule
from tlscale.errors import PlanError
from tlscale.models import adapt
from tlscale.models.names import canonical
from tlscale.planning.rules import decide
from tlscale.planning.types import ParamRule, Schedule, Tensor, Update


def rates(kind: Any, steps: int, warmup: float) -> list[float]:
    module = nn.Linear(2, 2)
    update = Update(learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.999), max_grad_norm=0.0)
    optimizer = make_optimizer(module, {"weight": 1.0, "bias": 1.0}, update)
    schedule = make_schedule(optimizer, Schedule(kind=kind, warmup_ratio=warmup), steps)
    return followed(optimizer, schedule, steps)


def followed(optimizer: Any, schedule: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(float(schedule.get_last_lr()[-1]))
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_shapes_are_those_of_transformers(kind: str, warmup: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(
        "constant_with_warmup" if kind == "constant" else kind, optimizer,
        num_warmup_steps=int(10 * warmup), num_training_steps=10,
    )  # fmt: skip
    assert rates(kind, 10, warmup) == followed(optimizer, theirs, 10)


def test_the_slanted_triangle_is_ulmfits() -> None:
    steps, cut_share, ratio = 40, 0.1, 32
    cut = int(steps * cut_share)

    def expected(t: int) -> float:
        part = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_share - 1))
        return (1 + part * (ratio - 1)) / ratio

    assert rates("slanted_triangular", steps, cut_share) == pytest.approx(
        [expected(t) for t in range(steps)]
    )


class Trace:
    """Which parameters each step moved, by canonical name."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.moved = module, list[set[str]]()
        self.before = self._copy()

    def _copy(self) -> dict[str, torch.Tensor]:
        names = canonical(self.module)
        return {names[n]: p.detach().clone() for n, p in self.module.named_parameters()}

    def step(self, step: int, steps: int, values: Any) -> None:
        now = self._copy()
        self.moved.append({name for name in now if not torch.equal(now[name], self.before[name])})
        self.before = now

    def said(self, happened: str, **facts: Any) -> None: ...


def run(folder: Path, rules: tuple[ParamRule, ...], steps: int = 8) -> tuple[nn.Module, Trace]:
    module = live_llama()
    trace = Trace(module)
    given = training(folder, max_steps=steps)
    names = canonical(module)
    tensors = [
        Tensor(name=names[n], shape=tuple(p.shape), dtype="F32") for n, p in module.named_parameters()
    ]
    stage = given.planned.stage.model_copy(update={"rules": rules})
    planned = given.planned.model_copy(update={"stage": stage, "decisions": decide(tensors, rules)})
    module = adapt.apply(module, planned.model_copy(update={"exact": False}), task="causal-lm")
    changed = {"planned": planned, "scales": adapt.lr_scales(module, planned), "watcher": trace}
    train(module, type(given)(**{**vars(given), **changed}))
    return module, trace


def test_blocks_join_at_their_step_and_not_before(tmp_path: Path) -> None:
    (stage,) = compiled("gradual_unfreezing", {"steps_per_block": 2}, llama())
    _, trace = run(tmp_path, stage.rules)
    decided = decide([Tensor(name=n, shape=(1,), dtype="F32") for n in trace.before], stage.rules)
    begins = {d.name: stage.rules[d.rule].from_step for d in decided}
    assert set(begins.values()) == {0, 2, 4, 6}
    # the schedule's first step of warm-up is at rate 0
    for step, moved in enumerate(trace.moved[1:], start=1):
        assert moved == {name for name, first in begins.items() if first <= step}, f"step {step}"


def test_what_never_joins_is_as_if_frozen_bit_for_bit(tmp_path: Path) -> None:
    head = ParamRule(pattern=r"head\..*|norm\.weight", lr_scale=1.0)
    waiting, _ = run(tmp_path / "a", (head, ParamRule(pattern=".*", lr_scale=1.0, from_step=99)))
    frozen, _ = run(tmp_path / "b", (head, ParamRule(pattern=".*", lr_scale=None)))
    for (name, one), (_, other) in zip(waiting.named_parameters(), frozen.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_rates_fall_from_block_to_block() -> None:
    facts = llama(labels=LABELS)
    (stage,) = compiled("layer_decay", {"decay": 0.5}, facts)
    scales = {d.name: d.lr_scale for d in decide(facts.tensors, stage.rules)}
    assert scales["head.score.weight"] == scales["norm.weight"] == 1.0
    assert scales["layers.1.mlp.up_proj.weight"] == 0.5
    assert scales["layers.0.mlp.up_proj.weight"] == 0.25
    assert scales["embed_tokens.weight"] == 0.125


def test_only_so_many_blocks_and_a_length_that_is_missing() -> None:
    facts = llama()
    (stage,) = compiled("gradual_unfreezing", {"blocks": 1, "steps_per_block": 3}, facts)
    scales = {d.name: d.lr_scale for d in decide(facts.tensors, stage.rules)}
    assert {name for name, scale in scales.items() if scale is None} == {
        name for name in scales if name.startswith(("layers.0.", "embed_tokens"))
    }
    flat = facts.model_copy(update={"tensors": tuple(t for t in facts.tensors if "layers" not in t.name)})
    with pytest.raises(PlanError, match="no numbered blocks"):
        compiled("layer_decay", {}, flat)
