"""CPU seconds of the commands that must answer at once, against their bars.

    python benchmarks/startup.py [--runs 5]

Median of the runs' user + system time, children included, on a model folder of 7B shape that is made for
the occasion: its config and safetensors files of which only the headers are real.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HELP_BAR = 0.15
PLAN_BAR = 0.30
SHARDS = 3
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
RECIPE = """\
version: 1
name: startup
model: {{model_name_or_path: {model}, task: causal-lm, quantization: nf4}}
data:
  train: {{path: {data}, prompt: prompt, completion: completion}}
  max_length: 512
strategy: {{kind: peft, method: lora, r: 16, target_modules: all-linear}}
train: {{per_device_train_batch_size: 1}}
hardware: {{device: cpu, memory_per_device: 80}}
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """Parameters of the 7B shape by their names in the files."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    made: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (CONFIG["vocab_size"], hidden)}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        made |= {f"{at}self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        made |= {f"{at}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        made[f"{at}mlp.down_proj.weight"] = (hidden, inner)
        made[f"{at}input_layernorm.weight"] = (hidden,)
        made[f"{at}post_attention_layernorm.weight"] = (hidden,)
    made["model.norm.weight"] = (hidden,)
    made["lm_head.weight"] = (CONFIG["vocab_size"], hidden)
    return made


def write_model(folder: Path) -> None:
    """Config, index and sparse files of the right length with true headers; they take no room on disk."""
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    everything = list(shapes().items())
    index = {}
    for number in range(SHARDS):
        name = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        header, position = {}, 0
        for tensor, shape in everything[number::SHARDS]:
            length = 2
            for side in shape:
                length *= side
            header[tensor] = {
                "dtype": "BF16",
                "shape": list(shape),
                "data_offsets": [position, position + length],
            }
            position += length
            index[tensor] = name
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + position)
    listed = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(listed, encoding="utf-8")


def cpu_seconds(command: list[str], compiled: Path) -> float:
    """User and system seconds of one run of `command`, with its bytecode in `compiled`.

    An installed program has been compiled; one that runs from a checkout, where this was forbidden, hasn't.

    Raises:
        SystemExit: it fails.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description="start-up times against their bars")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "llama-7b").mkdir()
        write_model(folder / "llama-7b")
        row = json.dumps({"prompt": "Say yes.", "completion": "Yes."})
        (folder / "train.jsonl").write_text((row + "\n") * 1000, encoding="utf-8")
        recipe = folder / "recipe.yaml"
        recipe.write_text(
            RECIPE.format(model=folder / "llama-7b", data=folder / "train.jsonl"), encoding="utf-8"
        )
        program = [sys.executable, "-m", "tlscale"]
        commands = (
            ("tlscale --help", [*program, "--help"], HELP_BAR),
            ("tlscale plan (7B shape)", [*program, "plan", str(recipe)], PLAN_BAR),
        )
        missed = False
        for name, command, bar in commands:
            cpu_seconds(command, folder / "compiled")
            times = [cpu_seconds(command, folder / "compiled") for _ in range(asked.runs)]
            median = statistics.median(times)
            missed |= median > bar
            verdict = "met" if median <= bar else "MISSED"
            print(f"{name:<26} {median:.3f} s CPU, median of {asked.runs}   bar {bar:.2f} s: {verdict}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
