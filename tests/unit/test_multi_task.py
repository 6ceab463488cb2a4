"""Several tasks at once: how rows are drawn, what each head is asked, and how the losses are balanced."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.nn import functional
from torchjd.aggregation import PCGrad

from tests.unit.facts import llama as llama_facts
from tests.unit.test_engine_loop import Heard, training
from tests.unit.test_plan_checks import CPU, recipe_of, stage_of
from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.data.mixing import drawn, quotas
from tlscale.engine.loop import Training, train
from tlscale.engine.multitask import apart, task_loss_of, together, uncertain
from tlscale.engine.objectives import Objective, Setting
from tlscale.engine.surgery import combined
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.models.heads import Classified
from tlscale.models.taskheads import own_task, task_of
from tlscale.planning.checks import check
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD
from tlscale.planning.tasks import task_sizes
from tlscale.planning.types import Adapter, Head, Tasks, World
from tlscale.recipe.types import Source
from tlscale.sources import read, survey

LABELS = ("a/x", "a/y", "a/z", "b/u", "b/v", "c/p", "c/q")
SIZES = task_sizes(LABELS)
OWN = {"adapters": "both"}
STAGES = [{"name": name, "strategy": {"kind": "full"}} for name in ("train", "later")]
BALANCES = ("rows", "tasks", "uncertainty", "pcgrad")


class Shared(nn.Module):
    """One hidden layer that all tasks share, and their heads in one matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.output = nn.Linear(6, 8), nn.Linear(8, len(LABELS))

    def forward(self, features: Tensor) -> Classified:
        return Classified(logits=self.output(torch.tanh(self.hidden(features))))


def rows(count: int, classes: int = len(LABELS)) -> tuple[Example, ...]:
    generator = torch.Generator().manual_seed(5)
    made = torch.randn(count, 6, generator=generator)
    return tuple(Example(where=f"r:{i}", features=made[i], label=i * i % classes) for i in range(count))


def tasks(**given: Any) -> Tasks:
    return Tasks(
        **{"sizes": SIZES, "temperature": 1.0, "balance": "rows", "uncertainty_rate": 0.05, **given}
    )


def learning(folder: Path, several: Tasks | None, classes: int = len(LABELS), **how: Any) -> Training:
    made = training(folder, **how)
    stage = made.planned.stage.model_copy(update={"tasks": several})
    return replace(
        made,
        planned=made.planned.model_copy(update={"stage": stage}),
        examples=rows(24, classes),
        validation=rows(8, classes),
        scales={name: 1.0 for name, _ in Shared().named_parameters()},
        collate=partial(collate, task="sequence-classification", pad_id=0),
    )


def learned(made: Training) -> tuple[dict[str, Tensor], list[float]]:
    module = Shared()
    train(module, made)
    assert isinstance(made.watcher, Heard)
    return {name: p.detach() for name, p in module.named_parameters()}, made.watcher.losses


def test_draws_follow_the_temperature_and_no_row_comes_again_before_all_have() -> None:
    groups = [0] * 600 + [1] * 60 + [2] * 6
    for temperature in (1.0, 2.0, 1e9):
        counts = Counter[int]()
        for epoch in range(20):
            made = drawn(groups, temperature=temperature, seed=1, epoch=epoch)
            assert made == drawn(groups, temperature=temperature, seed=1, epoch=epoch)
            assert len(made) == len(groups)
            counts.update(made)
        by_task = [sum(counts[i] for i, g in enumerate(groups) if g == task) for task in range(3)]
        wanted = [n ** (1 / temperature) for n in (600, 60, 6)]
        expected = [sum(by_task) * w / sum(wanted) for w in wanted]
        assert chisquare(by_task, expected).pvalue > 0.9, (by_task, expected)
        for task in range(3):
            taken = [counts[i] for i, g in enumerate(groups) if g == task]
            assert max(taken) - min(taken) <= 1
    once = drawn(groups, temperature=1.0, seed=1, epoch=3)
    assert sorted(once) == list(range(len(groups)))
    assert quotas([100, 10, 1], 111, 1e9) == [37, 37, 37]


def test_each_row_is_answered_by_its_own_head() -> None:
    assert SIZES == (("a", 3), ("b", 2), ("c", 2))
    torch.manual_seed(1)
    logits, labels = torch.randn(9, 7), torch.tensor([0, 1, 2, 3, 4, 5, 6, 3, 0])
    assert task_of(labels, SIZES).tolist() == [0, 0, 0, 1, 1, 2, 2, 1, 0]
    masked = own_task(logits, labels, SIZES)
    heads = {0: (0, 3), 1: (3, 5), 2: (5, 7)}
    total = 0.0
    for row, task in enumerate(task_of(labels, SIZES).tolist()):
        first, end = heads[task]
        alone = functional.cross_entropy(logits[row, first:end], labels[row] - first)
        assert float(functional.cross_entropy(masked[row], labels[row])) == pytest.approx(float(alone))
        total += float(alone)
    summed = sum(float(task_loss_of(logits, labels, span, 0.0)) for span in heads.values())
    assert summed == pytest.approx(total)
    assert torch.equal(own_task(logits, labels, ()), logits)


@pytest.mark.parametrize("balance", BALANCES)
def test_one_task_is_plain_fine_tuning_bit_for_bit(balance: str, tmp_path: Path) -> None:
    """With every balance but uncertainty, whose learned weight changes the rate of a single task too."""
    one = tasks(sizes=(("a", 7),), balance=balance)
    plain, losses = learned(learning(tmp_path / "a", None))
    alone, more = learned(learning(tmp_path / "b", one))
    if balance == "uncertainty":
        assert more[0] == losses[0]
        return
    assert more == losses
    for name, value in plain.items():
        assert torch.equal(value, alone[name]), name


@pytest.mark.parametrize("balance", BALANCES)
def test_micro_batches_change_nothing(balance: str, tmp_path: Path) -> None:
    several = tasks(balance=balance, temperature=3.0)
    whole, losses = learned(learning(tmp_path / "a", several, micro=8))
    parts, more = learned(learning(tmp_path / "b", several, micro=2, accumulation=4))
    assert more == pytest.approx(losses, rel=1e-5)
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-5), name
    plain, _ = learned(learning(tmp_path / "c", None))
    assert any(not torch.equal(plain[name], whole[name]) for name in plain)


def test_gradients_without_conflicts_are_those_of_torchjd() -> None:
    torch.manual_seed(0)
    conflicting = 0
    for _ in range(50):
        pair = torch.randn(2, 11)
        merged, conflicts = combined(list(pair), random.Random(0))
        assert torch.allclose(merged, PCGrad()(pair), atol=1e-5)
        conflicting += int(conflicts)
        assert conflicts == float(pair[0] @ pair[1] < 0)
    assert 10 < conflicting < 40
    # with three the order counts, unless no more than one pair is in conflict
    three = torch.tensor([[1.0, 0.0, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 2.0]])
    merged, conflicts = combined(list(three), random.Random(3))
    assert torch.allclose(merged, PCGrad()(three), atol=1e-6)
    assert conflicts == pytest.approx(1 / 3)
    agreeing = three.abs()
    merged, conflicts = combined(list(agreeing), random.Random(0))
    assert torch.equal(merged, agreeing.sum(0))
    assert conflicts == 0.0


def test_the_share_of_conflicts_is_told(tmp_path: Path) -> None:
    told: list[float] = []

    class Listening(Heard):
        def step(self, step: int, steps: int, values: Any) -> None:
            told.append(values["conflicts"])

    train(Shared(), replace(learning(tmp_path, tasks(balance="pcgrad")), watcher=Listening()))
    assert len(told) == 6
    assert all(0.0 <= share <= 1.0 for share in told)
    assert any(told)


def test_uncertainty_evens_out_losses_of_unlike_size(tmp_path: Path) -> None:
    """At rest every weighted loss is 1/2, whatever its own size: exp(s) = 2 L (Kendall et al. 2018)."""
    made = learning(tmp_path, tasks(balance="uncertainty"))
    setting = Setting(Shared(), made.planned, made.runtime, made.collate)
    sizes = (2.0, 200.0)
    each = [Objective(lambda view, size=size: torch.tensor(size), lambda batches: 1.0) for size in sizes]
    *weighted, price = uncertain(each, tasks(uncertainty_rate=0.05), setting)
    view = View(Shared(), {"train": made.collate(rows(1))})
    for _ in range(1000):
        (sum(one.total(view) for one in weighted) + price.total(view)).backward()
        price.after()
    for one in weighted:
        assert float(one.total(view).detach()) == pytest.approx(0.5, rel=0.05)


def test_terms_apart_have_the_rows_of_their_task(tmp_path: Path) -> None:
    made = learning(tmp_path, None)
    batches = {"train": made.collate(rows(12))}
    view = View(Shared(), batches)
    each = apart(SIZES, 0.1)
    assert sum(one.count(batches) for one in each) == 12
    whole = together(SIZES, 0.1)
    summed = sum(float(one.total(view).detach()) for one in each)
    assert summed == pytest.approx(float(whole.total(view).detach()), rel=1e-6)
    assert whole.count(batches) == 12


def source(folder: Path, **more: Any) -> Source:
    folder.mkdir(exist_ok=True)
    for name, labels in (("kind", ("who", "what")), ("mood", ("good", "bad"))):
        lines = [json.dumps({"text": f"{name} {i}", "label": labels[i % 2]}) for i in range(6)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    written = {name: {"path": str(folder / f"{name}.jsonl")} for name in ("kind", "mood")}
    return Source.model_validate({"tasks": written, **more})


def test_rows_of_tasks_are_read_as_one_source(tmp_path: Path) -> None:
    made = source(tmp_path)
    assert survey(made, need_labels=True).labels == ("kind/what", "kind/who", "mood/bad", "mood/good")
    assert survey(made, need_labels=True).rows == 12
    found = read(made, seed=0)
    assert found[0].values == {"text": "kind 0", "label": "kind/who"}
    assert [row.values["label"] for row in found[6:8]] == ["mood/good", "mood/bad"]
    assert Source.model_validate_json(made.model_dump_json()) == made
    for wrong in ({"limit": 3}, {"path": "x.csv"}, {"tasks": {"a": made.model_dump()}}):
        with pytest.raises(ValueError, match=r"tasks stands alone|exactly one of path, hub and tasks"):
            source(tmp_path, **wrong)


def tasks_recipe(folder: Path, **parts: Any) -> Any:
    given = source(folder).model_dump(exclude_unset=True)
    data = {"train": given, "test": given, **parts.pop("data", {})}
    return recipe_of(parts.pop("task", "sequence-classification"), data=data, **parts)


@pytest.mark.parametrize(
    ("parts", "world", "said"),
    [
        ({"data": {"test": {"path": "rows.csv"}}}, {}, "must be of the same tasks"),
        (
            {"train": {"objective": {"replay": {}}}, "data": {"replay": {"path": "r"}}},
            {},
            "know of several",
        ),
        ({"evaluate": {"against": ["tfidf"]}}, {}, "classes of other tasks"),
        ({"task": "causal-lm"}, {}, "set of classes"),
        (
            {"train": {"multi_task": {"balance": "pcgrad"}}},
            {"processes": 2, "sharding": "zero2"},
            "needs whole gradients",
        ),
        ({"train": {"multi_task": {"balance": "uncertainty"}}}, {"dtype": "float16"}, "loss scaling"),
        ({"train": {"multi_task": {"adapters": "per_task"}}}, {}, "plain LoRA under a head of ours"),
        ({"train": {"multi_task": OWN}, "lora": {"use_dora": True}}, {}, "plain LoRA under a head of ours"),
        ({"train": {"multi_task": OWN}, "lora": {"r": 4}, "head": "native"}, {}, "under a head of ours"),
        (
            {"train": {"multi_task": OWN}, "lora": {"r": 4}},
            {"processes": 2, "sharding": "zero2"},
            "need whole weights on every process",
        ),
        (
            {"train": {"multi_task": OWN, "objective": {"l2_sp": {"weight": 1.0}}}, "lora": {"r": 4}},
            {},
            "a change of weights of its own",
        ),
        ({"train": {"multi_task": OWN}, "lora": {"r": 4}, "stages": STAGES}, {}, "stand on several"),
    ],
)
def test_refused(parts: Any, world: Any, said: str, tmp_path: Path) -> None:
    slots: dict[str, Any] = {}
    if "lora" in parts:
        rules = (TRAIN_HEAD, FREEZE_ALL)
        slots = {"adapter": Adapter(peft_type="LORA", fields=parts["lora"]), "rules": rules}
        slots["head"] = Head(kind=parts.get("head", "pooled"))
    if "stages" in parts:
        parts = {**parts, "strategy": None}
    recipe = tasks_recipe(tmp_path, **{n: part for n, part in parts.items() if n not in ("lora", "head")})
    facts = llama_facts(labels=LABELS if recipe.model.task != "causal-lm" else ())
    with pytest.raises(PlanError, match=said):
        check(recipe, facts, (stage_of(recipe, facts, **slots),), CPU.model_copy(update=world))


def test_settings_of_tasks_without_tasks_are_refused() -> None:
    recipe = recipe_of("sequence-classification", train={"multi_task": {"temperature": 2.0}})
    facts = llama_facts(labels=LABELS)
    with pytest.raises(PlanError, match=r"train\.multi_task: there is one task"):
        check(recipe, facts, (stage_of(recipe, facts),), World(**CPU.model_dump()))
