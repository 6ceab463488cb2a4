"""Experiment trackers get the facts that `tlscale runs` lists, and the scores.

Each is read back from what it keeps on disk; those that are not installed are skipped.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub import kit
from tests.hub.conftest import Site

Kept = tuple[dict[str, Any], dict[str, float]]


def tensorboard(folder: Path) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scores: dict[str, float] = {}
    for part in {path.parent for path in folder.rglob("events.out.tfevents*")}:
        found = EventAccumulator(str(part))
        found.Reload()
        scores |= {tag: found.Scalars(tag)[-1].value for tag in found.Tags()["scalars"]}
    (written,) = folder.rglob("hparams.yml")
    return yaml.safe_load(written.read_text()), scores


def wandb(folder: Path) -> Kept:
    """From the file that a run without a network leaves: records in blocks, as LevelDB writes its log."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("*.wandb")
    data, at, part = file.read_bytes(), len(b":W&B\xe1\xbe\x00"), b""
    config: dict[str, Any] = {}
    scores: dict[str, float] = {}
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part, at = part + data[at + 7 : at + 7 + size], at + 7 + size
        if kind not in (1, 4):
            continue
        one, part = Record.FromString(part), b""
        for kept, items in (
            (config, [*one.config.update, *one.run.config.update]),
            (scores, one.history.item),
        ):
            kept |= {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    return config, scores


def mlflow(folder: Path) -> Kept:
    (run,) = {path.parent for path in folder.rglob("params")}
    return (
        {path.name: path.read_text() for path in (run / "params").iterdir()},
        {
            str(path.relative_to(run / "metrics")): float(path.read_text().splitlines()[-1].split()[1])
            for path in (run / "metrics").rglob("*")
            if path.is_file()
        },
    )


def trackio(folder: Path) -> Kept:
    (file,) = (path for path in folder.rglob("*.db") if path.stem == "tracked")
    with sqlite3.connect(file) as kept:
        configs = [json.loads(row[0]) for row in kept.execute("SELECT config FROM configs")]
        rows = [json.loads(row[0]) for row in kept.execute("SELECT metrics FROM metrics ORDER BY id")]
    return configs[-1], {name: value for row in rows for name, value in row.items()}


@pytest.mark.parametrize("read", [tensorboard, wandb, mlflow, trackio], ids=lambda read: read.__name__)
def test_trackers_get_the_same_facts(site: Site, tmp_path: Path, read: Callable[[Path], Kept]) -> None:
    name = read.__name__
    if util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    out, kept = tmp_path / "runs" / "tracked", tmp_path / "kept"
    file = kit.recipe(tmp_path, name="tracked", output_dir=str(out))
    where = {
        "WANDB_MODE": "offline", "WANDB_DIR": str(kept), "TRACKIO_DIR": str(kept),
        "MLFLOW_TRACKING_URI": kept.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true",
    }  # fmt: skip
    kept.mkdir()
    site.tlscale("run", str(file), "train.max_steps=2", f"train.report_to=[{name}]", **where)
    said, scores = read(out / "trackers" if name == "tensorboard" else kept)
    (entry,) = json.loads(site.tlscale("runs", str(tmp_path / "runs"), "--json").stdout)
    assert {key: str(said.get(key)) for key in entry["facts"]} == {
        key: str(value) for key, value in entry["facts"].items()
    }
    for key, value in entry["scores"].items():
        suite, metric = key.split(".")
        assert scores[f"{suite}/{metric}/tuned"] == pytest.approx(value, rel=1e-6)
        assert f"{suite}/{metric}/base" in scores
