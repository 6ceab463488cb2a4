"""Whether a checkpoint can be converted to GGUF by llama.cpp's own converter, as far as its files tell."""

from __future__ import annotations

import json
from pathlib import Path

from tlscale.errors import UsageError
from tlscale.planning.headers import read_header

# Architectures that the converter reads, by the model_type of their config.
CONVERTED = frozenset((
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2",
    "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox", "falcon", "starcoder2", "stablelm", "olmo", "olmo2",
    "cohere", "mamba", "granite", "bloom", "mpt", "opt", "smollm3", "deepseek_v2", "deepseek_v3", "exaone",
    "nemotron", "bert",
))  # fmt: skip
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def check(folder: Path) -> None:
    """Refuses a checkpoint that the converter would refuse.

    Raises:
        UsageError: with what is missing.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type")
    problems = []
    if kind not in CONVERTED:
        problems.append(f"its architecture, {kind}, is not one that is known to convert")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        problems.append(f"it has neither {' nor '.join(TOKENIZERS)}")
    if config.get("quantization_config"):
        problems.append("its weights are quantized")
    for path in sorted(folder.glob("model*.safetensors")):
        odd = {one.dtype for one in read_header(path).values()} - {"F32", "F16", "BF16"}
        if odd:
            problems.append(f"{path.name} holds {', '.join(sorted(odd))}")
    if problems:
        raise UsageError(f"not ready for GGUF: {'; '.join(problems)}; leave --gguf-ready out")
