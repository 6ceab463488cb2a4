"""How alike two representations of the same rows are."""

from __future__ import annotations

import numpy as np

from tlscale.errors import DataError
from tlscale.probes.arrays import Floats, checked


def cka(one: Floats, other: Floats) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414): 0 to 1.

    Args:
        one: [n, d] features of n rows.
        other: [n, e] features of the same rows. Rotating or scaling either changes nothing.

    Raises:
        DataError: another number of rows.
    """
    x, y = checked(one), checked(other)
    if len(x) != len(y):
        raise DataError(f"{len(x)} and {len(y)} rows; both representations must be of the same rows")
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    shared = np.linalg.norm(x.T @ y) ** 2
    alone = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(shared / alone) if alone > 0 else 0.0
