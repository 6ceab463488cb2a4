"""A training step of a masked language model with logits at the hidden places alone, against all places.

    python benchmarks/hidden_tokens.py [--rounds 3] [--steps 3] [--rows 16] [--length 64]

A BERT of MiniLM's shape (6 layers of 384, a vocabulary of 30,522) with random weights learns 15 % of random
tokens in float32, on one thread of a CPU. Each measurement is a fresh process; the two ways take turns.
Printed are the median over rounds of seconds a step, and the growth of the resident set to its peak.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHAPE = {
    "vocab_size": 30_522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "max_position_embeddings": 512,
}  # fmt: skip
RATE = 0.15
WAYS = ("all places", "hidden places")
# mallopt's parameter number, and the size in bytes from which blocks are mapped: freed memory goes back
M_MMAP_THRESHOLD, MAPPED_FROM = -3, 128 << 10


def resident(field: str) -> int:
    """Bytes of a field of this process's status: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def measure(way: str, steps: int, rows: int, length: int) -> dict[str, Any]:
    """Takes `steps` steps after one that isn't counted."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from tlscale.engine.objectives import task_loss
    from tlscale.engine.view import View, inputs
    from tlscale.models.likelihood import token_nll

    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = resident("VmRSS")
    module = BertForMaskedLM(BertConfig(**SHAPE)).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    seconds = []
    for _ in range(steps + 1):
        ids = torch.randint(5, SHAPE["vocab_size"], (rows, length))
        labels = torch.where(torch.rand(rows, length) < RATE, ids, -100)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        started = time.perf_counter()
        if way == WAYS[0]:
            loss = token_nll(module(**inputs(batch)).logits, labels).sum()
        else:
            loss = task_loss(View(module, {"train": batch}), "train", 0.0)
        (loss / rows).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "bytes": resident("VmHWM") - before}


def main() -> int:
    parser = argparse.ArgumentParser(description="hidden places against all places")
    for name, default in (("rounds", 3), ("steps", 3), ("rows", 16), ("length", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = ["--steps", str(asked.steps), "--rows", str(asked.rows), "--length", str(asked.length)]
    if asked.measure:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        print(json.dumps(measure(asked.measure, asked.steps, asked.rows, asked.length)))
        return 0
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(asked.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", way, *size]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{asked.rows} rows of {asked.length} tokens, {RATE:.0%} of them hidden, {asked.rounds} rounds")
    middle = {
        way: {key: statistics.median(one[key] for one in rows) for key in ("seconds", "bytes")}
        for way, rows in found.items()
    }
    for way, one in middle.items():
        print(f"{way:<14} {one['seconds']:6.2f} s a step   peak {one['bytes'] / 1e9:5.2f} GB")
    slow, fast = (middle[way] for way in WAYS)
    times, share = slow["seconds"] / fast["seconds"], fast["bytes"] / slow["bytes"]
    print(f"{times:.2f} times as fast, {share:.0%} of the memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
