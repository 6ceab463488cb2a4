"""Quantization x backend x what trains: `python -m tests.distributed.compatibility RESULTS [NAME ...]`.

Each cell trains a few steps, is saved and verified, or is refused by the plan; RESULTS gets one JSON object
a line. NAMEs choose pairs of quantization and backend (`nf4-zero3`) or single cells (`nf4-zero3-dora`);
without any, all are run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tests.distributed import kit
from tests.integration import tiny

QUANTIZATIONS = ("none", "int8", "nf4")
BACKENDS = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero3")
TRAINS = (*kit.ADAPTERS, "full")
STEPS = 4


def pairs() -> list[str]:
    """Every pair of quantization and backend."""
    return [f"{quantization}-{backend}" for quantization, backend in product(QUANTIZATIONS, BACKENDS)]


def cells(pair: str, model: Path, rows: Path) -> list[dict[str, Any]]:
    """The recipes of a pair, one for each kind of training."""
    quantization, _, backend = pair.partition("-")
    processes = 1 if backend == "single" else 2
    sharding = backend if backend in ("fsdp2", "zero1", "zero2", "zero3") else "none"
    return [
        kit.recipe(
            f"{pair}-{trains}",
            model,
            rows,
            method=trains,
            model={"quantization": quantization},
            train={"max_steps": STEPS},
            hardware={"processes": processes, "sharding": sharding},
        )
        for trains in TRAINS
    ]


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """What became of the cells of a pair, or of one: trained and verified, refused, or broken."""
    pair = "-".join(name.split("-")[:2])
    model, rows = tiny.llama(folder / "llama"), tiny.sentences(folder / "rows.jsonl", 24)
    processes = 1 if pair.endswith("-single") else 2
    outcomes: dict[str, kit.Outcome] = {}
    pending = [cell for cell in cells(pair, model, rows) if cell["name"].startswith(name)]
    while pending:
        # a cell that breaks takes its processes along, so those after it get new ones
        found = kit.run(pending, folder / f"{pair}-{len(pending)}", processes=processes)
        broken = next((i for i, o in enumerate(found.values()) if o.error and not o.refused), len(pending))
        outcomes |= dict(list(found.items())[: broken + 1])
        pending = pending[broken + 1 :]
    quantization, backend = pair.split("-")
    return [
        {
            "quantization": quantization,
            "backend": backend,
            "trains": name.removeprefix(f"{pair}-"),
            "outcome": _word(outcome),
            "tensors": len(outcome.tensors()),
            "reload": outcome.verified.get("max_difference"),
            "said": outcome.error[-1500:],
        }
        for name, outcome in outcomes.items()
    ]


def _cell(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["quantization"], row["backend"], row["trains"]


def _word(outcome: kit.Outcome) -> str:
    if outcome.error:
        return "refused" if outcome.refused else "broken"
    return (
        "trains" if outcome.tensors() and outcome.verified.get("max_difference") is not None else "broken"
    )


def main(results: Path, names: Sequence[str]) -> int:
    found: list[dict[str, Any]] = []
    kept = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    for name in names or pairs():
        before = len(found)
        with tempfile.TemporaryDirectory() as temporary:
            found += run(name, Path(temporary))
        done = {_cell(row) for row in found}
        rows = [row for row in kept if _cell(row) not in done] + found
        results.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in found[before:]:
            head = f"{'-'.join(_cell(row)[:2]):<14} {row['trains']:<16} {row['outcome']:<8}"
            print(f"{head} {row['said'][:300]}", flush=True)
    broken = sum(row["outcome"] == "broken" for row in found)
    print(f"{len(found)} cells: {sum(r['outcome'] == 'trains' for r in found)} train and verify, "
          f"{sum(r['outcome'] == 'refused' for r in found)} are refused, {broken} are broken")  # fmt: skip
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
