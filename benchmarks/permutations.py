"""Runs on shuffled labels: a verdict on what can't be learned must never be POSITIVE.

    python benchmarks/permutations.py --model FOLDER --data FOLDER [--runs 20]

Each run trains a head on frozen sentence features of ten Banking77 examples an intent, whose labels are
permuted by the run's seed, and is judged on untouched test rows against the base (zero-shot by label
names) and the commonest class. Printed is the verdict of each, and how many of each word there were.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


def shuffled(source: Path, target: Path, seed: int) -> None:
    """A copy of a labelled csv file with its labels dealt out anew."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [row["category"] for row in rows]
    random.Random(seed).shuffle(labels)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "category"])
        writer.writerows((row["text"], label) for row, label in zip(rows, labels, strict=True))


def recipe(model: Path, train: Path, test: Path, output: Path, seed: int) -> dict[str, object]:
    columns = {"text": "text", "label": "category"}
    return {
        "version": 1,
        "name": "permuted",
        "seed": seed,
        "output_dir": str(output),
        "model": {"model_name_or_path": str(model), "task": "sequence-classification"},
        "data": {
            "train": {"path": str(train), "per_class": 10, **columns},
            "test": {"path": str(test), **columns},
            "max_length": 128,
        },
        "strategy": {"kind": "features"},
        "train": {"learning_rate": 3e-3, "num_train_epochs": 20, "train_batch_size": 64},
        "evaluate": {"target": ["accuracy"], "against": ["majority"], "max_rows": 600},
        "hardware": {"device": "cpu"},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with banking77/train.csv and test.csv"
    )
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    words: Counter[str] = Counter()
    for seed in range(asked.runs):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            shuffled(asked.data / "banking77" / "train.csv", root / "train.csv", seed)
            made = recipe(
                asked.model, root / "train.csv", asked.data / "banking77" / "test.csv", root / "run", seed
            )
            (root / "recipe.yaml").write_text(json.dumps(made), encoding="utf-8")
            command = [sys.executable, "-m", "tlscale", "run", str(root / "recipe.yaml"), "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            verdict = json.loads((root / "run" / "verdict.json").read_text(encoding="utf-8"))
        claim = verdict["claims"][0]
        words[verdict["word"]] += 1
        print(
            f"permutation {seed:2}  {verdict['word']:<12} accuracy {claim['effect']:+.4f} "
            f"[{claim['low']:+.4f}, {claim['high']:+.4f}] against {claim['against']}",
            flush=True,
        )
    print(
        f"{asked.runs} permutations: " + ", ".join(f"{count} {word}" for word, count in words.most_common())
    )
    return 1 if words["POSITIVE"] else 0


if __name__ == "__main__":
    sys.exit(main())
