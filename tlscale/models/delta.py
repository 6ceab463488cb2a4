"""One algebra for what training changed: a delta is the change of each weight, whatever carried it.

An adapter's delta is its product BA with its scale, so averages and elections are of what the adapters
do, never of their factors: the mean of two A times the mean of two B is not the mean of the products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tlscale.errors import PlanError

Delta = Mapping[str, Tensor]


def difference(tuned: Delta, base: Delta) -> dict[str, Tensor]:
    """What training changed, in float32, of weights that are in both.

    Raises:
        PlanError: the two don't have the same weights.
    """
    odd = sorted(set(tuned) ^ set(base)) or sorted(n for n in base if tuned[n].shape != base[n].shape)
    if odd:
        raise PlanError(f"not two versions of one model: {', '.join(odd[:5])} differ in name or shape")
    return {name: tuned[name].float() - base[name].float() for name in base}


def scaled(delta: Delta, factor: float) -> dict[str, Tensor]:
    """WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903): so far from the base towards the tuned weights."""
    return {name: tensor * factor for name, tensor in delta.items()}


def mean(deltas: Sequence[Delta]) -> dict[str, Tensor]:
    """A uniform soup (Wortsman et al. 2022, arXiv:2203.05482)."""
    return {name: torch.stack([delta[name] for delta in deltas]).mean(dim=0) for name in deltas[0]}


def ties(deltas: Sequence[Delta], *, density: float) -> dict[str, Tensor]:
    """TIES (Yadav et al. 2023, arXiv:2306.01708): trim, elect signs, average those that agree.

    Args:
        deltas: Of one base.
        density: Share of each delta's entries that is kept, the largest of each weight.
    """
    return {name: _elected([_trimmed(delta[name], density) for delta in deltas]) for name in deltas[0]}


def dare(delta: Delta, *, density: float, seed: int) -> dict[str, Tensor]:
    """DARE (Yu et al. 2024, arXiv:2311.03099): drop entries at random, scale up what is left."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in sorted(delta):
        kept = torch.rand(delta[name].shape, generator=generator) < density
        made[name] = delta[name] * kept.to(delta[name].device) / density
    return made


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every floating-point parameter of a plain model."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.is_floating_point()}


@torch.no_grad()
def put(module: nn.Module, base: Delta, delta: Delta) -> None:
    """Sets the parameters of `module` to base + delta."""
    for name, parameter in module.named_parameters():
        if name in base:
            parameter.copy_(base[name].float() + delta[name])


def low_rank(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """B [out, rank] and A [rank, in] whose product is nearest to `delta` [out, in], and what they lack.

    The residual is the share of the squared norm that is lost (Eckart and Young 1936).
    """
    left, singular, right = torch.linalg.svd(delta.float(), full_matrices=False)
    root = singular[:rank].sqrt()
    lost = singular[rank:].square().sum() / singular.square().sum().clamp(min=1e-30)
    return left[:, :rank] * root, root[:, None] * right[:rank], float(lost)


def _trimmed(tensor: Tensor, density: float) -> Tensor:
    count = max(1, round(density * tensor.numel()))
    if count >= tensor.numel():
        return tensor
    lowest = tensor.abs().flatten().topk(count).values[-1]
    return torch.where(tensor.abs() >= lowest, tensor, torch.zeros_like(tensor))


def _elected(trimmed: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(list(trimmed))
    agrees = stacked.sign() == stacked.sum(dim=0).sign()
    chosen = agrees & (stacked != 0)
    return (stacked * chosen).sum(dim=0) / chosen.sum(dim=0).clamp(min=1)
