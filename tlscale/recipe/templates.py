"""Commented recipes for the common jobs, written by `tlscale init`.

Every comment is the field's own description, so that it can't disagree with what is checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tlscale.recipe.evaluate import Evaluate
from tlscale.recipe.train import Train
from tlscale.recipe.types import Data, Model, Recipe, Source


@dataclass(frozen=True)
class Job:
    """What a template fills in; the rest stays at its default."""

    summary: str
    model: dict[str, Any]
    data: dict[str, Any]
    strategy: dict[str, Any]
    train: dict[str, Any]


_LORA = {"kind": "peft", "method": "lora", "r": 16, "lora_alpha": 32, "target_modules": "all-linear"}

JOBS: dict[str, Job] = {
    "chat-lora": Job(
        "teach a chat model from conversations, with LoRA",
        {"model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "task": "causal-lm"},
        {"train": {"path": "chats.jsonl", "messages": "messages"}, "max_length": 1024},
        _LORA,
        {"learning_rate": 2e-4, "num_train_epochs": 2.0, "train_batch_size": 32},
    ),
    "chat-qlora": Job(
        "the same on a base loaded in 4 bits",
        {"model_name_or_path": "Qwen/Qwen3-8B", "task": "causal-lm", "quantization": "nf4"},
        {"train": {"path": "chats.jsonl", "messages": "messages"}, "max_length": 2048},
        _LORA,
        {"learning_rate": 2e-4, "num_train_epochs": 1.0, "gradient_checkpointing": True},
    ),
    "completion-lora": Job(
        "answers to prompts, with LoRA",
        {"model_name_or_path": "HuggingFaceTB/SmolLM2-135M", "task": "causal-lm"},
        {"train": {"path": "pairs.jsonl", "prompt": "{question}\n", "completion": "answer"}},
        _LORA,
        {"learning_rate": 2e-4, "num_train_epochs": 2.0},
    ),
    "domain-pretraining": Job(
        "go on pretraining on raw text of a domain",
        {"model_name_or_path": "HuggingFaceTB/SmolLM2-135M", "task": "causal-lm"},
        {
            "train": {"path": "domain.txt", "text": "text"},
            "retention": {"path": "general.txt", "text": "text"},
        },
        {"kind": "full"},
        {"learning_rate": 2e-5, "num_train_epochs": 1.0},
    ),
    "image-partial": Job(
        "classify images by training the topmost blocks",
        {"model_name_or_path": "google/vit-base-patch16-224-in21k", "task": "image-classification"},
        {"train": {"path": "images/train", "image": "image", "label": "label"}},
        {"kind": "partial", "last_layers": 2},
        {"learning_rate": 1e-4, "num_train_epochs": 5.0},
    ),
    "text-features": Job(
        "classify text by a head on frozen features: fast, hard to beat with few rows",
        {"model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2", "task": "sequence-classification"},
        {
            "train": {"path": "train.csv", "text": "text", "label": "label"},
            "test": {"path": "test.csv", "text": "text", "label": "label"},
        },
        {"kind": "features"},
        {"learning_rate": 1e-2, "num_train_epochs": 100.0},
    ),
    "text-lora": Job(
        "classify text with LoRA",
        {"model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2", "task": "sequence-classification"},
        {
            "train": {"path": "train.csv", "text": "text", "label": "label"},
            "test": {"path": "test.csv", "text": "text", "label": "label"},
        },
        _LORA,
        {"learning_rate": 5e-4, "num_train_epochs": 10.0},
    ),
}


def render(name: str) -> str:
    """The recipe of a job as YAML with a comment on every key."""
    job = JOBS[name]
    lines = [
        f"# {job.summary[0].upper()}{job.summary[1:]}. Any key can be overridden as key.sub=value.",
        "version: 1",
    ]
    lines += [f"name: {name}", f"seed: 0{_comment(Recipe, 'seed')}", "model:"]
    lines += _mapping(job.model, Model, 1)
    lines += ["data:"]
    for key, value in job.data.items():
        if isinstance(value, dict):
            lines += [f"  {key}:{_comment(Data, key)}", *_mapping(value, Source, 2)]
        else:
            lines += _mapping({key: value}, Data, 1)
    lines += ["strategy:", *_plain(job.strategy), "train:", *_mapping(job.train, Train, 1)]
    target = "[nll, perplexity]" if job.model["task"] == "causal-lm" else "[accuracy, f1_macro]"
    lines += ["evaluate:", f"  target: {target}{_comment(Evaluate, 'target')}"]
    return "\n".join(lines) + "\n"


def _comment(model: Any, key: str) -> str:
    description = model.model_fields[key].description
    return f"   # {description}" if description else ""


def _mapping(values: dict[str, Any], model: Any, depth: int) -> list[str]:
    return [f"{'  ' * depth}{key}: {_scalar(value)}{_comment(model, key)}" for key, value in values.items()]


def _plain(values: dict[str, Any]) -> list[str]:
    return [f"  {key}: {_scalar(value)}" for key, value in values.items()]


def _scalar(value: Any) -> str:
    plain = (
        isinstance(value, str)
        and value.replace("-", "").replace("_", "").replace("/", "").replace(".", "").isalnum()
    )
    return value if plain else json.dumps(value)
