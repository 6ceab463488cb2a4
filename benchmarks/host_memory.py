"""How many copies of the base the processes of one machine hold together, at most.

    python benchmarks/host_memory.py [--sharding none zero2 zero3 fsdp2] [--float32] [--full] [--wide]

Makes a random Llama of 425 million parameters as a safetensors file (bfloat16, or float32), and runs a
whole recipe on it: the base scored, an adapter trained on two processes by the real `accelerate launch`,
saved, and verified on a fresh base. All the while the memory of all processes together is read from the
kernel: proportional set size, in which a page that several processes share counts once. The same is done
with a network of a hundredth of the size, and the difference is the base's.

Printed is the peak over the whole run, in copies of the base's file: all of it; what is the processes' own;
and what only shows the file (the page cache), which the kernel takes back when memory is short.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "tlscale" / "assets" / "pico"
SHARDINGS = ("none", "zero2", "zero3", "fsdp2")
SECONDS = 0.1
# here nothing but what trains has to be anybody's own; where weights are shared out, each process has its
# part, and gathers a block or the output layer to work with it
REPLICATED = ("none", "zero2")
# what the bar is for; ZeRO-2 and -3 are at the edge of it
JUDGED = ("none", "fsdp2")
# at most so many copies; a half more than one for what trains, and for what is gathered at a moment
BAR = 1.5
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
}
SMALL: dict[str, Any] = {**LARGE, "hidden_size": 64, "intermediate_size": 176}
# 438 million parameters in fewer and larger parts: the output layer alone is 11 % of the whole, and both
# processes gather it at once
WIDE: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
SMALL_OF_WIDE: dict[str, Any] = {**WIDE, "hidden_size": 96, "intermediate_size": 256}


@dataclass(frozen=True)
class Peak:
    """Bytes of all processes together, each the highest of a run: all, their own, and of files."""

    whole: int = 0
    own: int = 0
    files: int = 0

    def higher(self, other: Peak) -> Peak:
        return Peak(max(self.whole, other.whole), max(self.own, other.own), max(self.files, other.files))


def write_model(folder: Path, shape: dict[str, Any], dtype: str) -> int:
    """A random Llama with the embedded tokenizer; returns the number of its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**shape, vocab_size=32000, max_position_embeddings=128, tie_word_embeddings=False)
    with torch.device("meta"):
        empty = LlamaForCausalLM(config)
    model = empty.to(getattr(torch, dtype)).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.03, 0.03)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    return sum(p.numel() for p in model.parameters())


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    processes: int = 2
    dtype: str = "bfloat16"
    full: bool = False
    wide: bool = False


def write(folder: Path, asked: Asked) -> tuple[int, int]:
    """Both networks and the rows; the large one's number of parameters and its file's bytes."""
    large, small = (WIDE, SMALL_OF_WIDE) if asked.wide else (LARGE, SMALL)
    count = write_model(folder / "large", large, asked.dtype)
    write_model(folder / "small", small, asked.dtype)
    row = json.dumps({"prompt": "Say yes.", "completion": " Yes."})
    (folder / "rows.jsonl").write_text((row + "\n") * 8, encoding="utf-8")
    return count, (folder / "large" / "model.safetensors").stat().st_size


def copies(folder: Path, asked: Asked, sharding: str) -> tuple[Peak, tuple[float, float, float]]:
    """The large network's peak, and what of it is the base's in copies: all, the processes' own, files'."""
    small, large = (run(recipe(folder, name, asked, sharding), folder) for name in ("small", "large"))
    base = (folder / "large" / "model.safetensors").stat().st_size
    whole, own, files = ((getattr(large, n) - getattr(small, n)) / base for n in ("whole", "own", "files"))
    return large, (whole, own, files)


def recipe(folder: Path, name: str, asked: Asked, sharding: str) -> dict[str, Any]:
    """Two steps of four short rows."""
    columns = {"path": str(folder / "rows.jsonl"), "prompt": "prompt", "completion": "completion"}
    adapter = {"kind": "peft", "method": "lora", "r": 8, "target_modules": "all-linear"}
    return {
        "version": 1,
        "name": "host-memory",
        "output_dir": str(folder / f"{sharding}-{name}"),
        "model": {"model_name_or_path": str(folder / name), "task": "causal-lm", "dtype": asked.dtype},
        "data": {"train": columns, "test": columns, "max_length": 32},
        "strategy": {"kind": "full"} if asked.full else adapter,
        "train": {"max_steps": 2, "train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1},
        "hardware": {"device": "cpu", "processes": asked.processes, "sharding": sharding},
    }


def run(written: dict[str, Any], folder: Path) -> Peak:
    """The peak of a run and of all that it starts.

    Raises:
        SystemExit: it fails.
    """
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(written), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tlscale", "run", str(file)]
    found = Peak()
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            found = found.higher(together(process.pid))
            time.sleep(SECONDS)
    if process.returncode:
        raise SystemExit((folder / "log").read_text(encoding="utf-8")[-3000:])
    return found


def together(root: int) -> Peak:
    """What a process and all its descendants hold now; a compiler that DeepSpeed starts is left out."""
    parts = [_sizes(pid) for pid in [root, *_descendants(root)] if _is_ours(pid)]
    return Peak(*(sum(part.get(name, 0) for part in parts) for name in ("Pss", "Pss_Anon", "Pss_File")))


def _is_ours(pid: int) -> bool:
    try:
        return b"tlscale" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _sizes(pid: int) -> dict[str, int]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return {}
    lines = (line.split() for line in text.splitlines()[1:])
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines}


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        parent = int(text.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, pending = [], [root]
    while pending:
        new = children.get(pending.pop(), [])
        found += new
        pending += new
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="copies of the base in the host's memory")
    parser.add_argument("--sharding", nargs="+", choices=(*SHARDINGS, "zero1"), default=SHARDINGS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--float32", dest="dtype", action="store_const", const="float32", default="bfloat16"
    )
    parser.add_argument("--full", action="store_true", help="train all weights, without a bar")
    parser.add_argument("--wide", action="store_true", help="fewer and larger layers, without a bar")
    given = parser.parse_args()
    asked, missed = Asked(given.processes, given.dtype, given.full, given.wide), False
    with tempfile.TemporaryDirectory() as made:
        count, base = write(Path(made), asked)
        size = f"{count / 1e6:.0f} M parameters, {asked.dtype}, {base / 1e9:.2f} GB"
        print(f"{size}, on {asked.processes} processes")
        for sharding in given.sharding:
            peak, (whole, own, files) = copies(Path(made), asked, sharding)
            judged = sharding in JUDGED and not (asked.full or asked.wide)
            verdict = "" if not judged else "met" if whole <= BAR else "MISSED"
            missed |= verdict == "MISSED"
            print(
                f"{sharding:<6} peak {peak.whole / 1e9:5.2f} GB, of it the base {whole:4.2f} copies "
                f"(own {own:5.2f}, of the file {files:4.2f})   {verdict}",
                flush=True,
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
