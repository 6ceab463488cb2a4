"""`tlscale probe --gradients`: the blocks of a base that a task pulls at, for surgical tuning.

Lee et al. 2022 (arXiv:2210.11466) fine-tune the blocks whose gradients are large beside their weights. A
head that is new gets a logistic regression on the frozen features first: at a random one every gradient
is noise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlscale.data.collate import collate
from tlscale.data.examples import Example, prepare
from tlscale.data.varying import Varied
from tlscale.engine.objectives import task_count, task_loss
from tlscale.engine.view import TRAIN, View, inputs
from tlscale.errors import PlanError
from tlscale.models.heads import PooledClassifier
from tlscale.models.load import load_base, load_processor
from tlscale.models.names import canonical
from tlscale.planning.blocks import numbered_blocks
from tlscale.planning.types import Head, Plan
from tlscale.recipe.base import Frozen
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json
from tlscale.worker.examples import load_rows, thinned
from tlscale.worker.hiding import varied

TINY = 1e-30
FIT_STEPS, FIT_DECAY = 100, 1e-4
NOTE = """\
pull: the norm of the mean gradient beside that of the weights; fisher: the mean squared gradient of a row,
beside that of all weights. Both are at the base, before any training."""


class Block(Frozen):
    """One numbered block, and how strongly the task's loss pulls at it."""

    block: int
    parameters: int
    pull: float
    fisher: float


def gradients(plan: Plan, layout: RunLayout, as_json: bool, request: str) -> None:
    """Writes `layout.gradients`: the numbered blocks, those first that the task pulls at most.

    Raises:
        PlanError: the base has no numbered blocks, or its weights are quantized.
    """
    if plan.recipe.model.quantization != "none":
        raise PlanError("model.quantization: quantized weights have no gradients; set it to none")
    module, examples, pad_id = _ready(plan, int(request))
    found = ranked(_measured(plan, module, examples, pad_id))
    best = found[0].block
    told = {
        "fingerprint": plan.fingerprint,
        "rows": len(examples),
        "blocks": [block.model_dump() for block in found],
        "strategy": {"kind": "partial", "blocks": [best]},
    }
    write_json(layout.gradients, told)
    print(json.dumps(told) if as_json else table(found, len(examples)))


def _ready(plan: Plan, rows: int) -> tuple[nn.Module, Sequence[Example], int]:
    model, facts = plan.recipe.model, plan.facts
    processor = load_processor(model, facts)
    source, given = load_rows(plan)["train"]
    examples = prepare(
        thinned(given, rows), source, task=model.task, processor=processor, labels=facts.labels,
        max_length=plan.max_length, overflow=plan.recipe.data.overflow, loss_on="all",
    ).examples  # fmt: skip
    head = Head(kind="pooled") if facts.labels and facts.head_is_new else Head(kind="native")
    world = plan.world.model_copy(update={"dtype": "float32"})
    module = load_base(model, facts, head=head, world=world, seed=plan.seed).to(plan.world.device).eval()
    pad_id = getattr(processor, "pad_token_id", None) or 0
    if isinstance(module, PooledClassifier):
        _fit(module, plan, examples, pad_id)
    return module, Varied(examples, varied(plan, processor)), pad_id


def _fit(module: PooledClassifier, plan: Plan, examples: Sequence[Example], pad_id: int) -> None:
    """Puts a logistic regression on the frozen features into the head."""
    batches = [_batch(plan, [example], pad_id) for example in examples]
    with torch.no_grad():
        features = torch.cat([module.features(**inputs(batch)) for batch in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    weights = list(module.head.parameters())
    steps: Any = torch.optim.LBFGS(weights, max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        steps.zero_grad()
        penalty = FIT_DECAY * torch.stack([weight.square().sum() for weight in weights]).sum()
        value = functional.cross_entropy(module.head(features), labels) + penalty
        torch.autograd.backward(value)
        return value

    steps.step(loss)


def _batch(plan: Plan, rows: Sequence[Example], pad_id: int) -> dict[str, Any]:
    task, device = plan.recipe.model.task, torch.device(plan.world.device)
    return dict(collate(rows, task=task, pad_id=pad_id, device=device))


def _measured(plan: Plan, module: nn.Module, examples: Sequence[Example], pad_id: int) -> list[Block]:
    """The blocks, with the mean squared gradient of a row as `fisher`."""
    patterns = {index: re.compile(pattern) for index, pattern in numbered_blocks(plan.facts).items()}
    names = canonical(module)
    blocks: dict[int, dict[str, nn.Parameter]] = {}
    for live, weight in module.named_parameters():
        found = [index for index, pattern in patterns.items() if pattern.fullmatch(names[live])]
        weight.requires_grad_(bool(found))
        if found:
            blocks.setdefault(found[0], {})[live] = weight
    weights = [weight for block in blocks.values() for weight in block.values()]
    total, squared = [torch.zeros_like(weight) for weight in weights], [0.0] * len(weights)
    counted = 0.0
    for example in examples:
        view = View(module, {TRAIN: _batch(plan, [example], pad_id)})
        count = max(1.0, task_count(view.batches, TRAIN))
        slopes = torch.autograd.grad(task_loss(view, TRAIN, 0.0), weights, allow_unused=True)
        counted += count
        for at, slope in enumerate(slopes):
            if slope is not None:
                total[at] += slope
                squared[at] += float((slope / count).square().sum())
    means = iter([slope / counted for slope in total])
    squares = iter(squared)
    return [_block(index, block, means, squares, len(examples)) for index, block in blocks.items()]


def _block(
    index: int, weights: Mapping[str, Tensor], means: Iterator[Tensor], squares: Iterator[float], rows: int
) -> Block:
    """One block, taking its weights' share of `means` and `squares`."""
    size = sum(weight.numel() for weight in weights.values())
    norm = sum(float(weight.detach().square().sum()) for weight in weights.values()) ** 0.5
    slope = sum(float(next(means).square().sum()) for _ in weights) ** 0.5
    fisher = sum(next(squares) for _ in weights) / rows / size
    return Block(block=index, parameters=size, pull=slope / max(norm, TINY), fisher=fisher)


def ranked(blocks: Sequence[Block]) -> list[Block]:
    """Strongest pull first, with Fisher information as a factor on the mean of all weights."""
    size = sum(block.parameters for block in blocks)
    mean = sum(block.fisher * block.parameters for block in blocks) / size
    scaled = [block.model_copy(update={"fisher": block.fisher / max(mean, TINY)}) for block in blocks]
    return sorted(scaled, key=lambda block: -block.pull)


def table(blocks: Sequence[Block], rows: int) -> str:
    """The ranking as plain text, and the strategy that it speaks for."""
    lines = [f"{'block':>5} {'parameters':>12} {'pull':>10} {'fisher':>8}   {rows:,} rows"]
    lines += [f"{b.block:>5} {b.parameters:>12,} {b.pull:>10.4g} {b.fisher:>8.2f}" for b in blocks]
    return "\n".join([*lines, NOTE, f"strategy: {{kind: partial, blocks: [{blocks[0].block}]}}"])
