"""A pooled head on disk: `head.safetensors` with its weights, `head.json` with its shape."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tlscale.errors import PlanError
from tlscale.models.heads import PooledClassifier
from tlscale.planning.types import Head

WEIGHTS = "head.safetensors"
SHAPE = "head.json"


def exists(folder: Path) -> bool:
    """Whether a pooled head lies in `folder`."""
    return (folder / WEIGHTS).is_file() and (folder / SHAPE).is_file()


def save(module: PooledClassifier, folder: Path, labels: tuple[str, ...]) -> None:
    """Writes the head of `module`."""
    head = module.head
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    first = head.hidden if head.has_hidden else head.output
    shape = {
        "features": first.in_features,
        "hidden": head.hidden.out_features if head.has_hidden else 0,
        "normalize": module.normalize,
        "pooling": module.pooling,
        "labels": list(labels),
    }
    (folder / SHAPE).write_text(json.dumps(shape, indent=2) + "\n", encoding="utf-8")


def read_shape(folder: Path) -> Head:
    """The kind of head that lies in `folder`."""
    if not exists(folder):
        return Head(kind="native")
    shape = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
    return Head(kind="pooled", hidden=shape["hidden"], normalize=shape["normalize"])


def fits(folder: Path, labels: tuple[str, ...]) -> bool:
    """Whether the head in `folder` is for just these `labels`; that of another task is no use."""
    shape = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
    return bool(tuple(shape["labels"]) == labels)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The head's weights."""
    return load_file(folder / WEIGHTS)


def load_into(module: PooledClassifier, folder: Path) -> None:
    """Puts the head in `folder` into `module`.

    Raises:
        PlanError: it has other parameters or other shapes than the module's head.
    """
    given = tensors(folder)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.head.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in given.items()}
    if wanted != found:
        raise PlanError(f"{folder / WEIGHTS} holds {found}, but the stage's head is {wanted}")
    module.head.load_state_dict(given)
