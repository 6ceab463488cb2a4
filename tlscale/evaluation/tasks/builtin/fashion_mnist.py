"""Fashion-MNIST: what piece of clothing a picture shows (Xiao et al. 2017, arXiv:1708.07747)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlscale.evaluation.tasks.task import Document, Rows, Task

NAMES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def document(row: Mapping[str, Any]) -> Document:
    """Of two arrays in files of their own, whose columns are named after them."""
    return Document(text="picture", image=row["x_test.npz/arr_0"], answer=int(row["y_test.npz/arr_0"]))


TASK = Task(
    name="fashion_mnist",
    summary="what piece of clothing a picture shows",
    kind="classification",
    test=(Rows(path="fashion_mnist_2k", span=(0.2, 1.0)),),
    train=(Rows(path="fashion_mnist_2k", span=(0.0, 0.2)),),
    document=document,
    metrics=("acc", "f1_macro"),
    labels=NAMES,
    template="a photo of a {label}",
)
