"""Writes docs/compatibility.md from the stored results of `python -m tests.distributed.compatibility`.

python tools/compatibility.py
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "compatibility.jsonl"
PAGE = ROOT / "docs" / "compatibility.md"
QUANTIZATIONS = ("none", "int8", "nf4")
BACKENDS = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero3")
NAMES = {"single": "one process", "ddp": "DDP", "fsdp2": "FSDP2", "zero1": "ZeRO-1", "zero2": "ZeRO-2"}
TRAINS = {"lora": "LoRA", "dora": "DoRA", "modules_to_save": "modules to save", "full": "full"}
HEAD = """# What trains on what

Every pair of quantization and backend with what is trained: each cell was run on a small Llama, on CPU
processes, and its saved result verified on a fresh base; or the plan refuses it, for the reason below. This
page is written by `python tools/compatibility.py` from the results of
`python -m tests.distributed.compatibility benchmarks/results/compatibility.jsonl`, which runs all cells.

Quantization is `model.quantization`; the backend follows `hardware.processes` and `hardware.sharding`.

"""


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page."""
    found = {(row["quantization"], row["backend"], row["trains"]): row for row in rows}
    reasons: list[str] = []
    lines = [
        f"| quantization | backend | {' | '.join(TRAINS.values())} |",
        f"|---|---|{'---|' * len(TRAINS)}",
    ]
    for quantization, backend in product(QUANTIZATIONS, BACKENDS):
        cells = [_cell(found.get((quantization, backend, trains)), reasons) for trains in TRAINS]
        lines.append(f"| {quantization} | {NAMES.get(backend, 'ZeRO-3')} | {' | '.join(cells)} |")
    counted = [row["outcome"] for row in found.values()]
    total = len(QUANTIZATIONS) * len(BACKENDS) * len(TRAINS)
    summary = (
        f"{counted.count('trains')} of {total} cells train and verify, {counted.count('refused')} are "
        f"refused by the plan, {counted.count('broken')} are broken, {total - len(counted)} have not been "
        "run."
    )
    refused = [f"{index}. {reason}" for index, reason in enumerate(reasons, start=1)]
    return HEAD + "\n".join(
        [*lines, "", summary, "", "Refused, and the nearest thing that works:", "", *refused, ""]
    )


def _cell(row: dict[str, Any] | None, reasons: list[str]) -> str:
    if row is None:
        return "not run"
    if row["outcome"] != "refused":
        return str(row["outcome"])
    if row["said"] not in reasons:
        reasons.append(row["said"])
    return f"refused ({reasons.index(row['said']) + 1})"


def main() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
