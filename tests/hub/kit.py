"""A base on the loopback Hub, a finished run on it, and the environment of the real clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.hub.server import Hub
from tests.integration import tiny

ROOT = Path(__file__).parents[2]
BASE = "ada/tiny-llama"
CARD = "---\nlicense: apache-2.0\n---\n# A base of a few thousand parameters\n"


def environment(hub: Hub, home: Path, *, token: str | None = "hf_write") -> dict[str, str]:
    """The variables under which the clients talk to `hub` alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    made = {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_VERBOSITY": "critical", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return {**kept, **made, **({"HF_TOKEN": token} if token else {})}


UPLOAD = """
import sys
from huggingface_hub import HfApi
api, (name, folder) = HfApi(), sys.argv[1:]
api.create_repo(name, private=False, exist_ok=True)
api.upload_folder(repo_id=name, folder_path=folder, commit_message="uploaded")
"""


def upload(hub: Hub, folder: Path, name: str, *, token: str = "hf_write") -> None:
    """Uploads a folder by the official client, as anybody would; in a process with its own settings."""
    env = environment(hub, folder.with_name(f"{folder.name}-home"), token=token)
    subprocess.run(
        [sys.executable, "-c", UPLOAD, name, str(folder)], env=env, check=True, capture_output=True
    )


def with_base(
    hub: Hub, folder: Path, *, licence: str | None = "apache-2.0", width: int = 32, token: str = "hf_write"
) -> Path:
    """Puts a tiny Llama on the Hub and returns its folder."""
    made = tiny.llama(folder, width=width)
    (made / "README.md").write_text(CARD)
    upload(hub, made, BASE, token=token)
    if licence is not None:
        hub.licences[BASE] = licence
    return made


def labelled(folder: Path) -> dict[str, Any]:
    """The `data` of a classifier of the same few sentences."""
    columns = {"text": "text", "label": "label"}
    train, test = (
        tiny.sentences(folder / "train.jsonl", 64),
        tiny.sentences(folder / "test.jsonl", 48, seed=1),
    )
    return {
        "train": {"path": str(train), **columns},
        "test": {"path": str(test), **columns},
        "max_length": 32,
    }


def recipe(folder: Path, **more: Any) -> Path:
    """A LoRA on the base of the Hub, over a few sentences whose answers can be learned."""
    train = tiny.sentences(folder / "train.jsonl", 64)
    test = tiny.sentences(folder / "test.jsonl", 48, seed=1)
    columns = {"prompt": "prompt", "completion": "completion"}
    raw = {
        "version": 1,
        "name": "colours",
        "model": {"model_name_or_path": BASE, "task": "causal-lm"},
        "data": {
            "train": {"path": str(train), "license": "cc-by-4.0", **columns},
            "test": {"path": str(test), **columns},
            "max_length": 32,
        },
        "strategy": {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear"},
        "train": {"learning_rate": 1e-2, "num_train_epochs": 6, "train_batch_size": 8},
        "hardware": {"device": "cpu"},
        **more,
    }
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(raw))
    return file


def tlscale(
    *arguments: str, env: dict[str, str], cwd: Path, code: int | None = 0, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; fails on another exit code than `code`."""
    done = subprocess.run(
        [python, "-m", "tlscale", *arguments],
        env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert code is None or done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
