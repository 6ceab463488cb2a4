"""A process that may have no more memory: the run ends with the plan's account of where it went."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from tests.distributed import kit
from tests.integration import tiny

ROOT = Path(__file__).parents[2]
# what Python, torch and transformers map before any training, and some room
LIMIT = 6 * 10**9


def test_out_of_memory_says_where_the_bytes_went_and_what_would_fit(tmp_path: Path) -> None:
    model, rows = tiny.llama(tmp_path / "llama"), tmp_path / "rows.jsonl"
    text = "the apple is red " * 5000
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for _ in range(8)))
    recipe = kit.recipe(
        "short",
        model,
        tiny.sentences(tmp_path / "test.jsonl", 8),
        method="full",
        output_dir=str(tmp_path / "run"),
    )
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32768}))
    recipe["data"] |= {"train": {"path": str(rows), "text": "text"}, "max_length": 20000}
    recipe["train"] |= {"train_batch_size": 4, "per_device_train_batch_size": 4}
    recipe["hardware"] |= {"memory_per_device": 10000}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(tmp_path / "recipe.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
    )
    said = done.stderr
    assert done.returncode == 3, said[-3000:]
    assert "memory ran out" in said
    assert "the plan's estimate for each device was weights" in said
    assert "the smallest change that should fit: train.per_device_train_batch_size=2" in said
