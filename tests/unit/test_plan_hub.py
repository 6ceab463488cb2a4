"""Planning from a Hub id reads the config and headers only, over a server of our own on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 4000,
    "tie_word_embeddings": False,
}
PROGRAM = """
import json, sys
from tlscale.errors import PlanError
from tlscale.planning.facts import read_facts
from tlscale.recipe.types import Model
name, revision, offline = sys.argv[1], sys.argv[2] or None, sys.argv[3] == "offline"
try:
    model = Model(model_name_or_path=name, revision=revision, task="causal-lm")
    facts = read_facts(model, labels=(), offline=offline)
except PlanError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({
        "commit": facts.commit,
        "origin": facts.origin,
        "names": [t.name for t in facts.tensors],
        "modules": sorted({m.split(".")[0] for m in sys.modules} & {"torch", "numpy", "transformers"}),
    }))
"""


class Hub:
    """A few files of one repository, and how many bytes of each were sent."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.sent: dict[str, int] = dict.fromkeys(files, 0)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def refuse(self, code: str) -> None:
                self.send_response(404)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def answer(self, *, body: bool) -> None:
                parts = self.path.split("?")[0].strip("/").split("/")
                if parts[:2] != ["some", "model"]:
                    return self.refuse("RepoNotFound")
                if parts[2] != "resolve" or parts[3] not in ("main", COMMIT):
                    return self.refuse("RevisionNotFound")
                if parts[4] not in hub.files:
                    return self.refuse("EntryNotFound")
                data, status = hub.files[parts[4]], 200
                span = self.headers.get("Range")
                if span:
                    first, last = span.removeprefix("bytes=").split("-")
                    data, status = data[int(first) : int(last) + 1], 206
                self.send_response(status)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{parts[4]}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    hub.sent[parts[4]] += len(data)
                    self.wfile.write(data)
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    tensors = {name: torch.zeros(4000, 8) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file({**tensors, "model.layers.0.input_layernorm.weight": torch.zeros(8)}, file)
    return file.read_bytes()


@pytest.fixture
def hub(weights: bytes) -> Iterator[Hub]:
    made = Hub({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights})
    yield made
    made.server.shutdown()
    made.server.server_close()


def ask(
    address: str, cache: Path, name: str, revision: str = "", mode: str = "online"
) -> dict[str, object]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = {**keep, "HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, revision, mode],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_headers_are_enough_and_the_commit_is_resolved(hub: Hub, weights: bytes, tmp_path: Path) -> None:
    answer = ask(hub.address, tmp_path, "some/model")
    assert answer["commit"] == COMMIT
    assert answer["origin"] == "safetensors"
    assert answer["names"] == [
        "embed_tokens.weight",
        "layers.0.input_layernorm.weight",
        "head.lm_head.weight",
    ]
    assert answer["modules"] == []
    assert 0 < hub.sent["model.safetensors"] < len(hub.files["model.safetensors"])
    again = ask("http://127.0.0.1:9", tmp_path, "some/model", mode="offline")
    assert again["commit"] == COMMIT
    assert again["origin"] == "config"
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").write_bytes(weights)
    cached = ask("http://127.0.0.1:9", tmp_path, "some/model", mode="offline")
    assert cached["origin"] == "safetensors"
    assert cached["names"] == answer["names"]


def test_errors_say_what_is_wrong(hub: Hub, tmp_path: Path) -> None:
    assert "no such model on the Hub" in str(ask(hub.address, tmp_path, "some/other")["error"])
    assert "has no revision v9" in str(ask(hub.address, tmp_path, "some/model", "v9")["error"])
    del hub.files["model.safetensors"]
    assert "not in safetensors" in str(ask(hub.address, tmp_path, "some/model")["error"])
    del hub.files["config.json"]
    assert "has no config.json" in str(ask(hub.address, tmp_path / "new", "some/model")["error"])


def test_without_a_network_the_cache_is_named(tmp_path: Path) -> None:
    error = str(ask("http://127.0.0.1:9", tmp_path, "some/model", mode="offline")["error"])
    assert "not in the Hub cache" in error
    assert "hf download some/model" in error
