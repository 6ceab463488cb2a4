"""The same training on every backend, as a table: `python -m tests.distributed.equality [FOLDER]`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.distributed import kit
from tests.integration import tiny

SHARDINGS = ("none", "zero1", "zero2", "zero3", "fsdp2")
# FSDP2's needs a GPU
OFFLOADS = (("zero1", "optimizer"), ("zero2", "optimizer"), ("zero3", "optimizer"), ("zero3", "parameters"))
SHARED_OUT = ("zero3", "fsdp2")
# the last of an epoch's three steps has 5 rows, which two processes can't share evenly
ROWS = 37


@dataclass(frozen=True)
class Line:
    """One line of the table: the largest differences from one process, and what verification found.

    `own` counts the frozen weights that are no longer pages of the base's file, which processes of a
    machine share; it is 0 where weights are shared out instead.
    """

    name: str
    method: str
    losses: float
    weights: float
    tensors: int
    empty: int
    keys_differ: int
    reload: float
    own: int
    error: str

    @property
    def good(self) -> bool:
        """Within what is promised: 1e-5 everywhere, nothing empty, missing or copied."""
        numbers = (self.losses, self.weights, self.reload)
        whole = self.tensors > 0 and not (self.empty or self.keys_differ or self.own or self.error)
        return whole and all(n <= 1e-5 for n in numbers)


# one line of every backend and of every kind
SHORT = (
    *("none-accumulated-lora", "zero1-modules_to_save", "zero2-pairs", "zero3-dora", "fsdp2-pairs"),
    *("zero3-masked", "fsdp2-masked"),
)


def lines(folder: Path, *, short: bool = False) -> list[Line]:
    """Every line: backends by adapters, accumulation, hidden tokens, and pairs with the whole batch's loss.

    `short` takes one line of every backend, and of every kind.
    """
    model, rows = tiny.llama(folder / "llama"), tiny.sentences(folder / "rows.jsonl", ROWS)

    def case(name: str, method: str, **parts: Any) -> dict[str, Any]:
        return kit.recipe(f"{name}-{method}", model, rows, method=method, **parts)

    methods = tuple(kit.ADAPTERS)
    alone = [case("one", method) for method in methods]
    alone += [case("one-accumulated", "lora", train={"per_device_train_batch_size": 4})]
    shared = [
        case(name, method, hardware={"processes": 2, "sharding": name})
        for name in SHARDINGS
        for method in methods
    ]
    shared += [
        case(
            f"{name}-accumulated", "lora",
            hardware={"processes": 2, "sharding": name}, train={"per_device_train_batch_size": 2},
        )
        for name in SHARDINGS
    ]  # fmt: skip
    encoder = tiny.bert(folder / "bert")

    # processes draw numbers of their own for dropout
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def pairs(name: str, **hardware: Any) -> dict[str, Any]:
        made = kit.recipe(f"{name}-pairs", encoder, rows, hardware=hardware)
        columns = {"path": str(rows), "anchor": "anchor", "positive": "positive"}
        made["model"] |= {"task": "sentence-embedding", "config": still}
        made["data"] = {"train": columns, "test": columns, "max_length": 32}
        return made

    alone.append(pairs("one"))
    shared += [pairs(name, processes=2, sharding=name) for name in ("none", "zero2", "fsdp2")]

    filling = tiny.masked_bert(folder / "masked")

    def masked(name: str, **hardware: Any) -> dict[str, Any]:
        made = kit.recipe(f"{name}-masked", filling, rows, hardware=hardware)
        made["model"] |= {"task": "masked-lm", "config": still}
        columns = {"path": str(rows), "text": "prompt"}
        made["data"] = {"train": columns, "test": columns, "max_length": 32}
        return made

    alone.append(masked("one"))
    shared += [masked(name, processes=2, sharding=name) for name in ("none", "zero2", "zero3", "fsdp2")]
    shared += [
        case(f"{name}-{waits}", "lora", hardware={"processes": 2, "sharding": name, "offload": waits})
        for name, waits in OFFLOADS
    ]
    if short:
        shared = [recipe for recipe in shared if recipe["name"] in SHORT]
    one = kit.run(alone, folder / "one", processes=1)
    two = kit.run(shared, folder / "two", processes=2)
    found = {**one, **two}
    return [_line(outcome, one[f"one-{name.rpartition('-')[2]}"]) for name, outcome in found.items()]


def _line(mine: kit.Outcome, reference: kit.Outcome) -> Line:
    name, _, method = mine.name.rpartition("-")
    saved, wanted = mine.tensors(), reference.tensors()
    reload = mine.verified.get("max_difference")
    return Line(
        name={"none": "ddp", "none-accumulated": "ddp-accumulated"}.get(name, name),
        method=method,
        losses=kit.loss_difference(mine, reference),
        weights=kit.weight_difference(mine, reference),
        tensors=len(saved),
        empty=sum(tensor.numel() == 0 for tensor in saved.values()),
        keys_differ=len(saved.keys() ^ wanted.keys()),
        reload=float("inf") if reload is None else float(reload),
        # transformers ties the bias of a head for hidden tokens by a copy, padded by nothing
        own=0 if name.startswith(SHARED_OUT) or method == "masked" else _own(mine),
        error=mine.error,
    )


def _own(outcome: kit.Outcome) -> int:
    return sum(one["frozen"] - one["mapped"] + one["written"] for one in outcome.mapped)


def table(found: list[Line]) -> str:
    """The lines as text."""
    numbers = f"{'losses':>9} {'weights':>9} {'reload':>9}"
    head = f"{'backend':<18} {'trains':<16} {numbers}  tensors  empty  own  keys"
    rows = [
        f"{x.name:<18} {x.method:<16} {x.losses:>9.1e} {x.weights:>9.1e} {x.reload:>9.1e}  {x.tensors:>7}  "
        f"{x.empty:>5}  {x.own:>3}  {x.keys_differ or 'same'}   {'' if x.good else 'NOT EQUAL'}"
        for x in found
    ]
    good = sum(x.good for x in found)
    return "\n".join(
        [head, *rows, f"{good} of {len(found)} lines within 1e-5 of one process over 20 steps"]
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = lines(folder)
    print(table(found))
    for line in found:
        if line.error:
            print(f"\n{line.name} {line.method}: {line.error}")
    return int(not all(line.good for line in found))


if __name__ == "__main__":
    sys.exit(main())
