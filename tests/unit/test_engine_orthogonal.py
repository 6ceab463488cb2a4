"""O-LoRA: the overlap by hand, what a step does to it, and what can't be meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.unit.test_engine_loop import Heard, examples, training
from tests.unit.test_engine_terms import lora, setting, with_terms
from tlscale.engine.loop import train
from tlscale.engine.objectives import make_terms
from tlscale.engine.terms.orthogonal import overlap, read
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.planning.types import Term


def factors(module: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in module.named_parameters() if ".lora_A." in n}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    folder = tmp_path / "earlier"
    folder.mkdir()
    torch.manual_seed(11)
    saved = {n.replace(".default", ""): torch.randn(3, p.shape[1]) for n, p in factors(lora()).items()}
    save_file(saved, folder / "adapter_model.safetensors")
    return folder


def asked(folder: Path, weight: float = 1.0) -> Term:
    return Term(name="o_lora", weight=weight, options={"adapters": [str(folder)]})


@torch.no_grad()
def test_the_overlap_is_the_squared_products_of_rows(earlier: Path, tmp_path: Path) -> None:
    module = lora()
    given = with_terms(training(tmp_path), asked(earlier))
    (_, (_, objective)) = make_terms(setting(module, given))
    batch = given.collate(examples(3))
    before = read(earlier)
    assert len(before) == 14
    total = 0.0
    for name, now in factors(module).items():
        old = before[name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")]
        total += sum(float(a @ b) ** 2 for a in now.detach() for b in old)
    assert float(objective.total(View(module, {"train": batch}))) == pytest.approx(3 * total, rel=1e-4)
    one = torch.eye(4)[:2]
    assert float(overlap([(one, torch.eye(4)[2:])])) == 0.0
    assert float(overlap([(one, one)])) == 2.0


def test_training_turns_a_away_from_earlier_ones(earlier: Path, tmp_path: Path) -> None:
    ends = {}
    for weight in (0.0, 1e-30, 0.1):
        torch.manual_seed(3)
        module = lora()
        scales = {n: 1.0 for n, p in module.named_parameters() if p.requires_grad}
        terms = (asked(earlier, weight),) if weight else ()
        given = with_terms(training(tmp_path / str(weight)), *terms)
        train(module, replace(given, watcher=Heard(), scales=scales))
        ends[weight] = {n: p.detach().clone() for n, p in factors(module).items()}
    assert all(torch.equal(ends[0.0][n], ends[1e-30][n]) for n in ends[0.0])
    before = read(earlier)

    def left(found: dict[str, Tensor]) -> float:
        names = {
            n: n.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight") for n in found
        }
        return float(overlap([(found[n], before[names[n]]) for n in found]))

    assert left(ends[0.1]) < left(ends[0.0])


def test_what_can_t_be_meant(tmp_path: Path) -> None:
    given = with_terms(training(tmp_path), Term(name="o_lora", weight=1.0, options={"adapters": []}))
    with pytest.raises(PlanError, match="no earlier adapter"):
        make_terms(setting(lora(), given))
    with pytest.raises(PlanError, match="not an adapter that can be read"):
        make_terms(setting(lora(), with_terms(training(tmp_path), asked(tmp_path / "none"))))
    for name, said in (("x.lora_A.weight", "adapts no module"), ("x.weight", "holds no LoRA")):
        save_file({name: torch.zeros(2, 16)}, tmp_path / "adapter_model.safetensors")
        with pytest.raises(PlanError, match=said):
            make_terms(setting(lora(), with_terms(training(tmp_path), asked(tmp_path))))
