"""Objective terms: formulas against references, and what every term owes plain fine-tuning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.test_engine_loop import Heard, examples, llama, training
from tlscale import plugins
from tlscale.data.examples import Example
from tlscale.engine.loop import Training, train
from tlscale.engine.objectives import Setting, make_terms, task, task_loss
from tlscale.engine.streams import stream_micros
from tlscale.engine.terms.adversarial import Conditioned, reverse, strength
from tlscale.engine.terms.aligning import WIDTHS, coral, mcc, mmd
from tlscale.engine.terms.base import divergence
from tlscale.engine.terms.staying import fisher
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.models.quiet import quiet
from tlscale.models.shifts import shifts
from tlscale.planning.strategy import terms
from tlscale.planning.types import Batch, Term
from tlscale.recipe.objective import Objective

OPTIONS: dict[str, dict[str, Any]] = {
    "l2_sp": {},
    "ewc": {"rows": 4},
    "kl_to_base": {"on": "train", "temperature": 2.0},
    "rdrop": {},
    "replay": {},
}


def with_terms(given: Training, *asked: Term, **changes: Any) -> Training:
    stage = given.planned.stage.model_copy(update={"objective": (Term(), *asked), **changes})
    planned = given.planned.model_copy(update={"stage": stage})
    return replace(given, planned=planned, streams={"replay": examples(7)})


def setting(module: nn.Module, given: Training) -> Setting:
    return Setting(module, given.planned, given.runtime, given.collate, given.streams)


def result(given: Training, *, dropout: float = 0.1) -> tuple[dict[str, Tensor], list[float]]:
    torch.manual_seed(3)
    module, heard = llama(dropout), Heard()
    scales = {name: 1.0 for name, _ in module.named_parameters()}
    train(module, replace(given, watcher=heard, scales=scales))
    return {name: p.detach().clone() for name, p in module.named_parameters()}, heard.losses


def lora() -> nn.Module:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2, init_lora_weights=False)
    with quiet():
        module: nn.Module = get_peft_model(llama(), config)
    return module


def test_weight_0_is_left_out_and_the_task_comes_first() -> None:
    asked = Objective.model_validate({"l2_sp": {"weight": 0.0}, "replay": {}, "label_smoothing": 0.1})
    assert terms(asked) == (
        Term(options={"label_smoothing": 0.1}),
        Term(name="replay", weight=1.0),
    )
    assert terms(Objective()) == (Term(),)
    weighted = [name for name in plugins.BUILTINS["tlscale.objectives"] if hasattr(asked, name)]
    assert len(weighted) > 10
    for name in set(weighted) - {"pet"}:
        assert terms(Objective.model_validate({name: {"weight": 0.0}})) == (Term(),), name


@pytest.mark.parametrize("name", OPTIONS)
def test_a_term_of_no_weight_changes_no_bit(name: str, tmp_path: Path) -> None:
    """With a weight below rounding instead of 0, so that the term is computed all the same."""
    plain, losses = result(with_terms(training(tmp_path / "a")))
    term = Term(name=name, weight=1e-30, options=OPTIONS[name])
    beside, more = result(with_terms(training(tmp_path / "b"), term))
    assert more == losses
    for key, value in plain.items():
        assert torch.equal(value, beside[key]), key


@pytest.mark.parametrize("name", OPTIONS)
def test_a_term_moves_the_weights_and_micro_batches_don_t_change_it(name: str, tmp_path: Path) -> None:
    term = Term(name=name, weight=0.5, options=OPTIONS[name])
    plain, _ = result(with_terms(training(tmp_path / "a")), dropout=0.1)
    whole, losses = result(with_terms(training(tmp_path / "b", micro=8), term), dropout=0.1)
    assert any(not torch.equal(plain[key], whole[key]) for key in plain)
    if name == "rdrop":
        return  # dropout differs with the micro-batch
    whole, losses = result(with_terms(training(tmp_path / "c", micro=8), term), dropout=0.0)
    parts, more = result(with_terms(training(tmp_path / "d", micro=2, accumulation=4), term), dropout=0.0)
    assert more == pytest.approx(losses, rel=1e-5)
    for key, value in whole.items():
        assert torch.allclose(value, parts[key], atol=2e-5), key


def test_streams_are_the_same_however_a_step_is_shared_out() -> None:
    rows = examples(5)

    def step(micro: int, accumulation: int, world: int, at: int) -> list[str]:
        batch = Batch(micro=micro, accumulation=accumulation, world=world)
        found: list[Example] = []
        for rank in range(world):
            for one in stream_micros(rows, batch, rank=rank, seed=1, stream="replay", step=at):
                assert len(one) == micro
                found += one
        return sorted(example.where for example in found)

    for at in (0, 1, 7):
        assert step(6, 1, 1, at) == step(3, 2, 1, at) == step(3, 1, 2, at) == step(1, 3, 2, at)
    ten = [where for at in range(10) for where in step(1, 1, 1, at)]
    assert sorted(ten[:5]) == sorted(ten[5:]) == sorted(row.where for row in rows)


@torch.no_grad()
def test_label_smoothing_is_torch_s_on_the_learned_tokens(tmp_path: Path) -> None:
    module = llama().eval()
    given = training(tmp_path)
    batch = given.collate(examples(4))
    view = View(module, {"train": batch})
    logits, labels = view.logits()[:, :-1], batch["labels"][:, 1:]
    log_chances = logits.log_softmax(-1)[labels != -100]
    right = log_chances[torch.arange(len(log_chances)), labels[labels != -100]]
    expected = -(0.8 * right + 0.2 * log_chances.mean(-1)).sum()
    assert float(task_loss(view, "train", 0.2)) == pytest.approx(float(expected), rel=1e-5)
    assert float(task_loss(view, "train", 0.0)) == float(task.total(view))


def test_divergence_is_that_of_torch() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(5, 7), torch.randn(5, 7)
    p, q = (torch.distributions.Categorical(logits=x / 2.0) for x in (other, one))
    expected = torch.distributions.kl_divergence(p, q) * 4.0
    assert torch.allclose(divergence(one, other, 2.0), expected, atol=1e-6)
    assert float(divergence(one, one, 2.0).abs().max()) < 1e-6


def test_two_passes_are_compared_both_ways(tmp_path: Path) -> None:
    """R-Drop: the mean of both divergences, of learned tokens alone where tokens are learned."""

    class Passes(nn.Module):
        """Answers with what is next."""

        def __init__(self, *answers: Tensor) -> None:
            super().__init__()
            self._next = iter(answers)

        def forward(self, **given: Tensor) -> Any:
            return SimpleNamespace(logits=next(self._next))

    torch.manual_seed(0)
    rdrop = made("rdrop", classifier(), tmp_path)
    one, other = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    sides = [torch.distributions.Categorical(logits=x) for x in (one, other)]
    kl = torch.distributions.kl_divergence
    each = (kl(sides[0], sides[1]) + kl(sides[1], sides[0])) / 2
    tokens = torch.tensor([[-100, 1, -100, 2], [0, -100, 2, -100]])
    batches = {"train": {"input_ids": torch.zeros(2, 4), "labels": tokens}}
    expected = each[0, 0] + each[0, 2] + each[1, 1]
    assert float(rdrop.total(View(Passes(one, other), batches))) == pytest.approx(float(expected), rel=1e-5)
    assert rdrop.count(batches) == 3
    rows = {"train": {"features": torch.zeros(2, 4), "labels": torch.tensor([0, 1])}}
    found = rdrop.total(View(Passes(one[:, 0], other[:, 0]), rows))
    assert float(found) == pytest.approx(float(each[:, 0].sum()), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("adapter", [False, True], ids=["weights", "lora"])
def test_the_base_s_answers_are_those_of_the_start(adapter: bool, tmp_path: Path) -> None:
    base = llama().eval()
    module = lora().eval() if adapter else llama().eval()
    term = Term(name="kl_to_base", weight=1.0, options={"on": "train", "temperature": 1.0})
    given = with_terms(training(tmp_path), term)
    (_, (_, objective)) = make_terms(setting(module, given))
    batch = given.collate(examples(3))
    if not adapter:
        assert float(objective.total(View(module, {"train": batch}))) == pytest.approx(0.0, abs=1e-6)
        module.lm_head.weight.mul_(3.0)
    counts = batch["labels"][:, 1:] != -100
    theirs, ours = (
        View(m, {"train": batch}).logits()[:, :-1][counts].log_softmax(-1) for m in (base, module)
    )
    expected = (theirs.exp() * (theirs - ours)).sum()
    assert float(expected) > 1e-3
    assert float(objective.total(View(module, {"train": batch}))) == pytest.approx(
        float(expected), rel=1e-4
    )


def test_moving_is_measured_on_the_product() -> None:
    module = lora()
    found = shifts(module, with_head=True)
    assert len(found) == 14
    part: Any = module.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    name = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    with torch.no_grad():
        # another pair of factors of the same product is no move
        part.lora_A["default"].weight.mul_(2.0)
        part.lora_B["default"].weight.mul_(0.5)
    weight, shift = found[name]
    assert weight is part.base_layer.weight
    assert float(shift().detach().abs().max()) < 1e-6
    before = part.lora_B["default"].weight @ part.lora_A["default"].weight
    with torch.no_grad():
        part.lora_B["default"].weight.mul_(3.0)
    assert torch.allclose(shift(), 2 * before * part.scaling["default"], atol=1e-6)
    shift().square().sum().backward()
    assert part.lora_A["default"].weight.grad is not None


def test_l2_sp_and_its_gradient_by_hand(tmp_path: Path) -> None:
    module = llama()
    given = with_terms(training(tmp_path), Term(name="l2_sp", weight=1.0))
    (_, (_, objective)) = make_terms(setting(module, given))
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    batches = {"train": given.collate(examples(3))}
    loss = objective.total(View(module, batches)) / objective.count(batches)
    loss.backward()
    moved = {name: p.detach() - start[name] for name, p in module.named_parameters()}
    assert float(loss.detach()) == pytest.approx(
        sum(float(m.square().sum()) for m in moved.values()) / 2, rel=1e-5
    )
    for name, p in module.named_parameters():
        assert p.grad is not None
        assert torch.allclose(p.grad, moved[name], atol=1e-6)


def test_fisher_is_the_mean_of_squared_gradients(tmp_path: Path) -> None:
    module = llama().eval()
    given = with_terms(training(tmp_path))
    rows = examples(3)
    weight = module.model.layers[0].mlp.up_proj.weight
    weight.requires_grad_(False)
    found = fisher(setting(module, given), {"up": weight}, rows)
    assert not weight.requires_grad, "left as it was"
    expected = torch.zeros_like(weight)
    for row in rows:
        copy = llama().eval()
        batch = given.collate([row])
        logits = copy(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        functional.cross_entropy(
            logits[0, :-1], batch["labels"][0, 1:], ignore_index=-100, reduction="sum"
        ).backward()
        gradient = copy.model.layers[0].mlp.up_proj.weight.grad
        assert gradient is not None
        expected += gradient.square() / 3
    assert torch.allclose(found["up"], expected, rtol=1e-4, atol=1e-10)


def test_alignment_formulas_are_skada_s() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skada.deep import losses
    torch.manual_seed(0)
    one, other = torch.randn(9, 4), 2 * torch.randn(7, 4) + 1
    assert float(coral(one, other)) == pytest.approx(float(losses.deepcoral_loss(one, other)), rel=1e-5)
    chances = torch.randn(9, 4)
    assert float(mcc(chances, 2.5)) == pytest.approx(float(losses.mcc_loss(chances, T=2.5)), rel=1e-3)


def test_mmd_by_its_double_sum() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(4, 3), torch.randn(6, 3) + 1
    both = torch.cat([one, other])
    squares = [[float((a - b).square().sum()) for b in both] for a in both]
    mean = sum(map(sum, squares)) / (10 * 9)

    def kernel(i: int, j: int) -> float:
        return sum(float(torch.exp(torch.tensor(-squares[i][j] / (w * mean)))) for w in WIDTHS) / len(
            WIDTHS
        )

    def average(left: Sequence[int], right: Sequence[int]) -> float:
        return sum(kernel(i, j) for i in left for j in right) / (len(left) * len(right))

    first, second = range(4), range(4, 10)
    expected = average(first, first) + average(second, second) - 2 * average(first, second)
    assert float(mmd(one, other)) == pytest.approx(expected, rel=1e-4)
    assert float(mmd(one, one)) == pytest.approx(0.0, abs=1e-6)


def test_what_a_term_lacks_is_said(tmp_path: Path) -> None:
    given = with_terms(training(tmp_path), Term(name="replay"))
    bare = replace(given, streams={})
    with pytest.raises(PlanError, match=r"give data\.replay"):
        make_terms(setting(llama(), bare))
    many = with_terms(training(tmp_path, accumulation=2), Term(name="mcc", options={"temperature": 2.5}))
    with pytest.raises(PlanError, match="gradient_accumulation_steps to 1"):
        make_terms(setting(llama(), many))


def classifier() -> PooledClassifier:
    torch.manual_seed(0)
    return PooledClassifier(nn.Identity(), "mean", PooledHead(4, 3, 5), normalize=False)


def made(name: str, module: nn.Module, tmp_path: Path) -> Any:
    term = Term(name=name, options={"hidden": 6, "lr_scale": 1.0})
    given = replace(with_terms(training(tmp_path), term), streams={"unlabelled": examples(2)})
    return make_terms(setting(module, given))[1][1]


def domains() -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(1)
    return {
        "train": {"features": torch.randn(7, 4), "labels": torch.zeros(7, dtype=torch.int64)},
        "unlabelled": {"features": torch.randn(5, 4) + 2.0, "labels": torch.zeros(5, dtype=torch.int64)},
    }


@pytest.mark.parametrize("name", ["dann", "cdan"])
def test_the_discriminator_learns_and_the_features_flee(name: str, tmp_path: Path) -> None:
    module, batches = classifier(), domains()
    term = made(name, module, tmp_path)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    losses = []
    for _ in range(300):
        loss = term.total(View(module, batches, progress=0.0)) / term.count(batches)
        loss.backward()
        losses.append(float(loss.detach()))
        term.after()
    assert losses[0] == pytest.approx(0.69, abs=0.3), "a new discriminator knows nothing"
    assert losses[-1] < 0.9 * losses[0]
    for key, p in module.named_parameters():
        assert torch.equal(p, before[key])
        assert p.grad is None or not p.grad.any(), "at the start features hear nothing of it"
    loss = term.total(View(module, batches, progress=1.0)) / term.count(batches)
    loss.backward()
    with torch.no_grad():
        for p in module.head.hidden.parameters():
            assert p.grad is not None
            p -= 0.05 * p.grad
    fled = float(term.total(View(module, batches, progress=1.0)).detach()) / term.count(batches)
    assert fled > losses[-1], "going down the reversed gradient makes the domains harder to tell"


def test_reversal_turns_the_gradient_round() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    (reverse(rows, 0.5) * 2).sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, torch.full((2, 3), -1.0))
    assert strength(0.0) == 0.0
    assert 0.99 < strength(1.0) < 1.0


def test_conditioning_is_the_outer_product_or_near_it() -> None:
    features, chances = torch.randn(3, 4), torch.rand(3, 2)
    whole = Conditioned(4, 2, torch.Generator().manual_seed(0))(features, chances)
    assert torch.allclose(whole[1], torch.outer(chances[1], features[1]).flatten())
    many, classes = torch.randn(2, 600), torch.rand(2, 8)
    projected = Conditioned(600, 8, torch.Generator().manual_seed(0))(many, classes)
    assert projected.shape == (2, 4096)
    exact = (many[0] @ many[0]) * (classes[0] @ classes[0])
    assert float(projected[0] @ projected[0]) == pytest.approx(float(exact), rel=0.2)


def test_rows_that_count_for_nothing_are_left_out_of_the_game(tmp_path: Path) -> None:
    module, batches = classifier(), domains()
    term = made("dann", module, tmp_path)
    alone = float(term.total(View(module, batches, absent=frozenset({"train"}))).detach())
    both = float(term.total(View(module, batches)).detach())
    assert 0 < alone < both
    assert term.count({"unlabelled": batches["unlabelled"]}) == 5
