"""Averages of weights and mixing with the start: by hand, when neutral, and when a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.unit.facts import LABELS
from tests.unit.facts import llama as llama_facts
from tests.unit.test_engine_loop import Heard, llama, trained, training
from tests.unit.test_engine_terms import setting
from tests.unit.test_plan_checks import ADAPT, CPU, POOLED, recipe_of, stage_of
from tests.unit.test_resume import Killed
from tlscale.engine.averaging import Average, averaged
from tlscale.engine.loop import Training
from tlscale.engine.mixout import Mixout, make_mixout
from tlscale.engine.step import mean_objective, set_modes
from tlscale.errors import PlanError
from tlscale.planning.checks import check
from tlscale.planning.types import Adapter, Term, Update, World
from tlscale.recipe.train import Averaging

EMA = Averaging(kind="ema", decay=0.6)
SWA = Averaging(kind="swa", start=0.5)


class Seen(Heard):
    """Keeps the weights after each step."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.weights: list[dict[str, Tensor]] = []

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        super().step(step, steps, values)
        self.weights.append({name: p.detach().clone() for name, p in self.module.named_parameters()})


def asking(made: Training, **slots: Any) -> Training:
    stage = made.planned.stage.model_copy(update=slots)
    return replace(made, planned=made.planned.model_copy(update={"stage": stage}))


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def seen(made: Training) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    module = llama()
    watcher = Seen(module)
    trained(replace(made, watcher=watcher), module)
    return module, watcher.weights


@pytest.mark.parametrize(
    "asked", [EMA, SWA, SWA.model_copy(update={"every": 2})], ids=["ema", "swa", "two"]
)
def test_averages_are_those_of_torch(asked: Averaging, tmp_path: Path) -> None:
    """Six steps: ema counts all of them, swa the last three, or of them every second."""
    module, steps = seen(asking(training(tmp_path), averaging=asked))
    average: Any = AveragedModel(llama(), use_buffers=False)
    taken = steps if asked.kind == "ema" else steps[3::1] if asked.every == 1 else steps[3::2]
    for count, weights in enumerate(taken):
        if asked.kind == "ema":
            average.multi_avg_fn = get_ema_multi_avg_fn(min(0.6, (1 + count + 1) / (10 + count + 1)))
        now = llama()
        now.load_state_dict(weights, strict=False)
        average.update_parameters(now)
    for name, weight in average.module.named_parameters():
        assert torch.allclose(weight, module.get_parameter(name), atol=1e-6), name
    assert any(not torch.equal(p, steps[-1][name]) for name, p in module.named_parameters())


@pytest.mark.parametrize(
    "slots",
    [
        {"averaging": Averaging(kind="ema", decay=0.0)},
        {"averaging": Averaging(kind="swa", every=6)},
        {"mixout": 0.0},
        {"mixout": 1e-12},
    ],
    ids=["decay 0", "last step alone", "mixout 0", "mixout of nothing"],
)
def test_neutral_settings_change_no_bit(slots: dict[str, Any], tmp_path: Path) -> None:
    given: dict[str, Any] = {"validation": 5, "eval_steps": 2}
    plain, _, losses = trained(training(tmp_path / "a", **given), llama(0.1))
    other, _, more = trained(asking(training(tmp_path / "b", **given), **slots), llama(0.1))
    assert more.losses == losses.losses
    assert equal(plain, other)


SGD = Update(optim="sgd", learning_rate=0.5, weight_decay=0.1, betas=(0.9, 0.999), max_grad_norm=1.0)


@pytest.mark.parametrize(
    "slots", [{"averaging": EMA}, {"averaging": SWA}, {"mixout": 0.4}, {"update": SGD}], ids=str
)
def test_what_is_done_again_is_the_same(slots: dict[str, Any], tmp_path: Path) -> None:
    given: dict[str, Any] = {"save_steps": 2, "epochs": 3.0, "validation": 5, "eval_steps": 3}
    straight, _, whole = trained(asking(training(tmp_path / "a", **given), **slots), llama(0.1))
    killed = asking(replace(training(tmp_path / "b", **given), watcher=Killed(7)), **slots)
    with pytest.raises(KeyboardInterrupt):
        trained(killed, llama(0.1))
    resumed, _, rest = trained(asking(training(tmp_path / "b", **given), **slots), llama(0.1))
    assert rest.losses == whole.losses[6:]
    assert equal(straight, resumed)


def test_the_average_is_validated_and_training_goes_on_from_the_last_weights(tmp_path: Path) -> None:
    given: dict[str, Any] = {"validation": 5, "eval_steps": 2}
    plain, _, losses = trained(training(tmp_path / "a", **given))
    module, _, heard = trained(asking(training(tmp_path / "b", **given), averaging=EMA))
    assert heard.losses == losses.losses, "the steps are those of plain fine-tuning"
    assert not equal(plain, module)
    made = training(tmp_path / "c", **given)
    from tlscale.engine.objectives import task

    now = mean_objective(
        module, made.validation, [(1.0, task)], collate=made.collate, runtime=made.runtime, size=8
    )
    told = [facts["loss"] for kind, facts in heard.events if kind == "validated"]
    assert told[-1] == pytest.approx(now, rel=1e-6)


@pytest.mark.parametrize("averaging", [None, EMA])
def test_early_stopping_keeps_the_best_average(averaging: Averaging | None, tmp_path: Path) -> None:
    made = training(
        tmp_path, rows=8, validation=24, epochs=60.0, learning_rate=5e-2, eval_steps=1,
        early_stopping_patience=3,
    )  # fmt: skip
    module, done, heard = trained(asking(made, averaging=averaging))
    from tlscale.engine.objectives import task

    losses = [facts["loss"] for kind, facts in heard.events if kind == "validated"]
    now = mean_objective(
        module, made.validation, [(1.0, task)], collate=made.collate, runtime=made.runtime, size=8
    )
    assert done.stopped_early
    assert now == pytest.approx(min(losses), rel=1e-6)


def test_before_it_begins_an_average_is_the_weights_themselves() -> None:
    average = Average(SWA, steps=10)
    start = {"w": torch.ones(2)}
    average.take(start, 5)
    assert average.state_dict() == {"taken": 0, "mean": {}}
    average.take({"w": torch.tensor([1.0, 3.0])}, 6)
    average.take({"w": torch.tensor([3.0, 5.0])}, 7)
    assert average.state_dict()["mean"]["w"].tolist() == [2.0, 4.0]


def test_running_statistics_of_what_trains_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    with pytest.raises(PlanError, match=r"train\.averaging: 1 and 0 more normalize by running statistics"):
        averaged(module, EMA, 10)
    module[1].requires_grad_(False)
    assert averaged(module, EMA, 10) is not None
    assert averaged(module, None, 10) is None


def test_mixout_by_hand() -> None:
    """Over many steps the mixed weights are the weights themselves on average, and their gradients too."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(20, 30))
    start = weight.detach().clone()
    mixout = Mixout({"w": weight}, 0.3, seed=5)
    with torch.no_grad():
        weight.add_(torch.randn(20, 30))
    running, slope = weight.detach().clone(), torch.randn(20, 30)
    mean, shares, slopes = torch.zeros(20, 30), [], torch.zeros(20, 30)
    for step in range(400):
        weight.grad = None
        with mixout.mixed(step):
            mask = mixout.masks(step)["w"]
            by_hand = start + mask / 0.7 * (running - start)
            assert torch.allclose(weight, by_hand, atol=1e-5)
            mean += weight.detach() / 400
            (weight * slope).sum().backward()
        assert torch.equal(weight, running)
        assert weight.grad is not None
        assert torch.allclose(weight.grad, slope * mask / 0.7)
        slopes += weight.grad / 400
        shares.append(float(mask.float().mean()))
    assert sum(shares) / 400 == pytest.approx(0.7, abs=0.005)
    assert float((mean - running).abs().mean()) < 0.05
    assert float((slopes - slope).abs().mean()) < 0.05
    assert torch.equal(mixout.masks(3)["w"], Mixout({"w": weight}, 0.3, seed=5).masks(3)["w"])
    assert not torch.equal(mixout.masks(3)["w"], mixout.masks(4)["w"])


def test_mixout_keeps_weights_nearer_and_micro_batches_don_t_change_it(tmp_path: Path) -> None:
    start = llama()

    def moved(module: nn.Module) -> float:
        pairs = zip(module.parameters(), start.parameters(), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs if a.dim() > 1)

    def run(name: str, mixout: float, **given: Any) -> tuple[nn.Module, list[float]]:
        made = asking(training(tmp_path / name, epochs=10.0, **given), mixout=mixout)
        module, _, heard = trained(made)
        return module, heard.losses

    mixed, losses = run("mixed", 0.7)
    parts, more = run("parts", 0.7, micro=2, accumulation=4)
    assert more == pytest.approx(losses, rel=1e-3)
    for one, other in zip(mixed.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-3)
    print(moved(mixed), moved(run("plain", 0.0)[0]))
    assert moved(mixed) < moved(run("plain", 0.0)[0])


def test_a_new_head_is_not_mixed(tmp_path: Path) -> None:
    made = asking(training(tmp_path), mixout=0.5)
    module = llama()
    set_modes(module)
    known = make_mixout(setting(module, made), 0)
    new = make_mixout(replace(setting(module, made), new_head=True), 0)
    assert known is not None
    assert new is not None
    assert set(known.masks(0)) - set(new.masks(0)) == {"lm_head.weight"}
    assert all(mask.dim() > 1 for mask in known.masks(0).values())
    module.model.requires_grad_(False)
    with pytest.raises(PlanError, match=r"train\.mixout: no matrix of the base trains"):
        make_mixout(replace(setting(module, made), new_head=True), 0)


TWO = World(device="cpu", processes=2, dtype="float32", memory_per_device=None)
IA3 = {**ADAPT, "adapter": Adapter(peft_type="IA3", fields={})}
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], World, str]] = [
    (
        "factors",
        {"averaging": EMA},
        ADAPT,
        CPU,
        "the mean of A times the mean of B .*; use strategy kind: full",
    ),
    ("shared out", {"averaging": SWA}, {}, TWO.model_copy(update={"sharding": "fsdp2"}), "zero1 or zero2"),
    ("an adapter", {"mixout": 0.5}, ADAPT, CPU, r"an adapter begins as no change.*strategy\.lora_dropout"),
    ("a head", {"mixout": 0.5}, POOLED, CPU, "only a new head trains"),
    (
        "staying twice",
        {"mixout": 0.5, "objective": (Term(), Term(name="l2_sp"))},
        {},
        CPU,
        "use one of them",
    ),
    (
        "sharded",
        {"mixout": 0.5},
        {},
        TWO.model_copy(update={"sharding": "zero2"}),
        "whole weights and grad",
    ),
]


@pytest.mark.parametrize(
    ("slots", "more", "world", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_cannot_be_meant(slots: dict[str, Any], more: dict[str, Any], world: World, said: str) -> None:
    recipe = recipe_of("sequence-classification")
    facts = llama_facts(labels=LABELS)
    with pytest.raises(PlanError, match=said):
        check(recipe, facts, (stage_of(recipe, facts, **more, **slots),), world)


def test_a_random_start_is_no_place_to_stay() -> None:
    recipe = recipe_of(model={"init": "scratch"}, train={"mixout": 0.3})
    with pytest.raises(PlanError, match=r"train\.mixout: .*these begin random"):
        check(recipe, llama_facts(), (stage_of(recipe, llama_facts()),), CPU)


@pytest.mark.parametrize(
    ("slots", "world"),
    [
        ({"averaging": EMA, "mixout": 0.3}, TWO),
        ({"averaging": SWA}, TWO.model_copy(update={"sharding": "zero2"})),
        ({**IA3, "averaging": EMA}, CPU),
    ],
)
def test_what_can_is_let_through(slots: dict[str, Any], world: World) -> None:
    recipe = recipe_of()
    check(recipe, llama_facts(), (stage_of(recipe, llama_facts(), **slots),), world)
