"""SetFit's own library on the rows of configs/proofs/setfit-news.yaml, beside what tlscale had from them.

    python benchmarks/proofs.py setfit-news
    pip install setfit && python benchmarks/setfit_beside.py

Each draw's training rows go to SetFit's trainer at its defaults: one pass over oversampled pairs, 16 at a
time, rate 2e-5, then a logistic regression. Prints one line a draw: the accuracy of both on the test rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from datasets import Dataset
from proofs import installed
from setfit import SetFitModel, Trainer, TrainingArguments

from tlscale.recipe.load import load_recipe
from tlscale.sources import Row, read

ROOT = Path(__file__).parents[1]
RUN = ROOT / "runs" / "setfit-news"


def library(rows: Sequence[Row], seed: int) -> SetFitModel:
    """A model that SetFit trained on `rows`."""
    model = SetFitModel.from_pretrained(installed() or "sentence-transformers/all-MiniLM-L6-v2")
    train = Dataset.from_list([{"text": row.values["text"], "label": row.values["label"]} for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, batch_size=16, num_epochs=1, seed=seed, report_to="none", save_strategy="no"
        )
        Trainer(model=model, args=settings, train_dataset=train).train()
    return model


def main() -> int:
    recipe = load_recipe(ROOT / "configs" / "proofs" / "setfit-news.yaml")
    assert recipe.data.train is not None, "the recipe names its rows"
    assert recipe.data.test is not None, "the recipe names its rows"
    test = read(recipe.data.test, seed=0)
    theirs: list[float] = []
    ours: list[float] = []
    for seed in recipe.seeds:
        outcomes = (RUN / f"seed-{seed}" / "outcomes" / "tuned-target.jsonl").read_text(encoding="utf-8")
        scored = [json.loads(line) for line in outcomes.splitlines()]
        said = library(read(recipe.data.train, seed=seed), seed).predict(
            [row.values["text"] for row in test]
        )
        theirs.append(mean(str(a) == row.values["label"] for a, row in zip(said, test, strict=True)))
        ours.append(mean(one["prediction"] == one["reference"] for one in scored))
        print(f"draw {seed}: setfit {theirs[-1]:.3f}, tlscale {ours[-1]:.3f} of {len(test):,}", flush=True)
    for name, found in (("setfit", theirs), ("tlscale", ours)):
        print(f"{name}: mean {mean(found):.4f}, sd {stdev(found):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
