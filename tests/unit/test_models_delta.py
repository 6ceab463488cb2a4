"""The algebra of deltas: by hand, against PEFT's own merging, and on products instead of factors."""

from __future__ import annotations

import pytest
import torch
from peft.utils.merge_utils import ties as peft_ties

from tlscale.errors import PlanError
from tlscale.models import delta


def tensors(count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{"w": torch.randn(6, 5, generator=generator)} for _ in range(count)]


def test_interpolation_ends_at_base_and_tuned() -> None:
    base, tuned = tensors(2)
    change = delta.difference(tuned, base)
    assert torch.allclose(base["w"] + delta.scaled(change, 1.0)["w"], tuned["w"])
    assert torch.equal(delta.scaled(change, 0.0)["w"], torch.zeros(6, 5))
    with pytest.raises(PlanError, match="not two versions of one model: other"):
        delta.difference({**tuned, "other": tuned["w"]}, base)


def test_the_mean_is_of_products() -> None:
    torch.manual_seed(0)
    factors = [(torch.randn(6, 2), torch.randn(2, 5)) for _ in range(2)]
    products = [{"w": b @ a} for b, a in factors]
    right = delta.mean(products)["w"]
    assert torch.allclose(right, (products[0]["w"] + products[1]["w"]) / 2)
    wrong = (factors[0][0] + factors[1][0]) / 2 @ ((factors[0][1] + factors[1][1]) / 2)
    assert not torch.allclose(right, wrong, atol=0.1)
    b, a, lost = delta.low_rank(right, 4)
    assert torch.allclose(b @ a, right, atol=1e-5)
    assert lost < 1e-10
    b, a, lost = delta.low_rank(right, 2)
    assert lost == pytest.approx(float((b @ a - right).square().sum() / right.square().sum()), rel=1e-4)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_ties_are_peft_s(density: float) -> None:
    members = tensors(3)
    expected = peft_ties(
        [m["w"].clone() for m in members], torch.ones(3), density, majority_sign_method="total"
    )
    assert torch.allclose(delta.ties(members, density=density)["w"], expected, atol=1e-6)


def test_dare_keeps_the_mean_and_its_share() -> None:
    member = {"w": torch.ones(200, 200)}
    made = delta.dare(member, density=0.25, seed=0)["w"]
    assert set(made.unique().tolist()) == {0.0, 4.0}
    assert float(made.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(made, delta.dare(member, density=0.25, seed=0)["w"])
    assert not torch.equal(made, delta.dare(member, density=0.25, seed=1)["w"])


def test_put_gives_base_plus_delta() -> None:
    module = torch.nn.Linear(3, 2)
    base = delta.weights_of(module)
    delta.put(module, base, {name: torch.ones_like(t) for name, t in base.items()})
    assert torch.equal(module.weight, base["weight"] + 1)
