"""The optimizer that updates ask for, against others' results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from tlscale.engine.optim import make_optimizer
from tlscale.planning.types import Update

STRENGTHS = (0.1, 1.0, 10.0)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_linear_head_by_sgd_is_logistic_regression(strength: float) -> None:
    """With weight decay 1 / (C x rows), as scikit-learn counts C; the intercept is decayed in neither."""
    torch.manual_seed(0)
    rows = functional.normalize(torch.randn(32, 12, dtype=torch.float64), dim=-1)
    labels = torch.randint(0, 4, (32,))
    head = nn.Linear(12, 4, dtype=torch.float64)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    update = Update(
        optim="sgd",
        learning_rate=1.0,
        weight_decay=1 / (strength * 32),
        betas=(0.9, 0.999),
        max_grad_norm=0.0,
    )
    optimizer = make_optimizer(head, {"weight": 1.0, "bias": 1.0}, update)
    for _ in range(3000):
        optimizer.zero_grad()
        functional.cross_entropy(head(rows), labels).backward()
        optimizer.step()
    other = LogisticRegression(C=strength, tol=1e-12, max_iter=10_000).fit(rows.numpy(), labels.numpy())
    with torch.no_grad():
        found = head(rows).softmax(dim=-1).numpy()
    np.testing.assert_allclose(found, other.predict_proba(rows.numpy()), atol=1e-6)
    np.testing.assert_allclose(head.weight.detach().numpy(), other.coef_, atol=1e-5)
