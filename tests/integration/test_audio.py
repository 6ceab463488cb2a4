"""Sound: clips are read as scipy reads them, and a spectrogram model learns, is saved and answers."""

from __future__ import annotations

import json
import shutil
import wave
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly
from transformers import ASTFeatureExtractor

from tests.integration import tiny
from tests.integration.test_worker_runs import LORA, Run, logged, models, run, scores
from tlscale.data.clips import spectrogram
from tlscale.errors import DataError
from tlscale.planning.compile import compile_plan, read_plan
from tlscale.recipe.load import check
from tlscale.recipe.types import Recipe, Source
from tlscale.runs.layout import RunLayout
from tlscale.sources import Row, read, survey
from tlscale.sources.clips import decode
from tlscale.sources.doctor import diagnose
from tlscale.worker.run import ACTIONS

__all__ = ["models", "run"]

TASK = "audio-classification"


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, Any]:
    tiny.spectrograms(tmp_path / "ast")
    tiny.tones(tmp_path / "tones")
    clips = {"path": str(tmp_path / "tones")}
    return {
        "model": {"model_name_or_path": str(tmp_path / "ast")},
        "data": {"train": clips, "test": clips, "max_length": None},
    }


def heard(run: Run, sound: dict[str, Any], strategy: dict[str, Any], **train: Any) -> RunLayout:
    return run(TASK, strategy=strategy, **{**sound, "train": {"max_steps": 40, **train}})


@pytest.mark.parametrize(
    "strategy",
    [{"kind": "full"}, {"kind": "features"}, {**LORA, "r": 8}],
    ids=["full", "features", "lora"],
)
def test_learns_is_verified_and_answers(
    run: Run, sound: dict[str, Any], strategy: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    layout = heard(run, sound, strategy)
    assert scores(layout)["target tuned accuracy"] > 0.9
    assert logged(layout)
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    (verified,) = [event for event in events if event["event"] == "verified"]
    assert (verified["moved"], verified["max_difference"]) == (verified["tensors"], 0.0)
    capsys.readouterr()
    for name in ("low", "high"):
        clip = next((tmp_path / "tones" / name).iterdir())
        ACTIONS["predict"](read_plan(layout.plan), layout, False, json.dumps({"text": str(clip)}))
        assert capsys.readouterr().out.startswith(name)


def test_plan_counts_the_model(sound: dict[str, Any]) -> None:
    recipe = recipe_of(sound)
    plan = compile_plan(recipe, offline=True)
    assert (plan.facts.labels, plan.facts.architecture.max_length) == (("high", "low"), 2 * 2 + 2)
    assert plan.stages[0].exact


def recipe_of(sound: dict[str, Any], **model: Any) -> Recipe:
    raw = {"version": 1, "name": "t", "strategy": {"kind": "full"}, "data": sound["data"]}
    return check({**raw, "model": {"task": TASK, **sound["model"], **model}}, source="t")


def write(path: Path, content: bytes, *, width: int = 2, channels: int = 1, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


@pytest.mark.parametrize(("width", "scale"), [(1, 2**7), (2, 2**15), (3, 2**31), (4, 2**31)])
def test_samples_are_those_that_scipy_reads(width: int, scale: int, tmp_path: Path) -> None:
    noise = numpy.random.default_rng(width).bytes(600 * width * 2)
    path = write(tmp_path / "noise.wav", noise, width=width, channels=2, rate=11025)
    rate, wanted = wavfile.read(path)
    mono = (wanted.astype("float64") - (128 if width == 1 else 0)).mean(axis=1) / scale
    clip = decode(path)
    assert clip.rate == rate == 11025
    numpy.testing.assert_allclose(clip.samples, mono, atol=1e-6)
    numpy.testing.assert_allclose(clip.at(16000), resample_poly(mono, 640, 441), atol=1e-5)
    numpy.testing.assert_array_equal(decode(path.read_bytes()).samples, clip.samples)


def test_a_clip_shorter_than_a_frame_is_followed_by_silence(tmp_path: Path) -> None:
    extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=16)
    noise = numpy.random.default_rng(0).bytes(2 * 100)
    short = write(tmp_path / "short.wav", noise, rate=16000)
    whole = write(tmp_path / "whole.wav", noise + bytes(2 * 300), rate=16000)
    found = [
        spectrogram(Row({}, "row"), given, tmp_path, extractor) for given in ("short.wav", "whole.wav")
    ]
    assert (short.stat().st_size, whole.stat().st_size) == (44 + 200, 44 + 800)
    torch.testing.assert_close(found[0].values, found[1].values)
    assert found[0].frames == found[1].frames == 1
    in_table = spectrogram(Row({}, "row"), {"bytes": whole.read_bytes(), "path": None}, None, extractor)
    torch.testing.assert_close(in_table.values, found[1].values)
    with pytest.raises(DataError, match="row: audio is"):
        spectrogram(Row({}, "row"), 3, None, extractor)
    with pytest.raises(DataError, match=r"row: .*leaves the folder"):
        spectrogram(Row({}, "row"), "../whole.wav", tmp_path / "x", extractor)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no sound", "can't be read as a WAV file"),
        (b"", "can't be read as a WAV file"),
        (None, "is cut off"),
    ],
)
def test_broken_clips_are_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", bytes(400))
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(DataError, match=said):
        decode(path)
    with pytest.raises(DataError, match="has no samples"):
        decode(write(tmp_path / "empty.wav", b""))


def test_clips_by_class_in_a_folder_a_zip_and_a_table(sound: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "tones"
    packed = tmp_path / "tones.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*.wav")):
            archive.write(path, f"tones/{path.relative_to(folder)}")
    table = tmp_path / "clips.csv"
    lines = [f"tones/{p.relative_to(folder)},{p.parent.name}" for p in sorted(folder.rglob("*.wav"))]
    table.write_text("\n".join(["audio,label", *lines]) + "\n")
    for path in (folder, packed, table):
        source = Source(path=str(path))
        assert survey(source, need_labels=True).labels == ("high", "low")
        assert Counter(row.values["label"] for row in read(source, seed=0)) == {"high": 12, "low": 12}
    (folder / "low" / "cover.png").write_bytes(b"")
    with pytest.raises(DataError, match="is no WAV file"):
        read(Source(path=str(folder)), seed=0)


def test_the_doctor_hears_what_is_wrong(sound: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "tones"
    write(folder / "low" / "silent.wav", bytes(2400))
    write(folder / "low" / "fast.wav", numpy.random.default_rng(0).bytes(2400), rate=44100)
    (folder / "high" / "broken.wav").write_bytes(b"RIFF")
    recipe = recipe_of(sound)
    found = {finding.check: finding for finding in diagnose(recipe)}
    assert {"silent-clip", "rate", "audio"} <= found.keys()
    assert found["audio"].severity == "error"


def test_longer_clips_are_cut_and_counted_or_refused(
    run: Run, sound: dict[str, Any], tmp_path: Path
) -> None:
    long = tmp_path / "tones" / "low" / "long.wav"
    write(long, numpy.random.default_rng(0).bytes(2 * 8000))
    layout = heard(run, sound, {"kind": "features"}, max_steps=5)
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    (data,) = [event for event in events if event["event"] == "data" and event["role"] == "train"]
    assert (data["cut_rows"], data["cut_tokens"]) == (1, 98 - 16)
    shutil.rmtree(layout.root)
    sound["data"]["overflow"] = "drop"
    layout = heard(run, sound, {"kind": "features"}, max_steps=5)
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    (data,) = [event for event in events if event["event"] == "data" and event["role"] == "train"]
    assert (data["cut_rows"], data["dropped_rows"]) == (0, 1)
    shutil.rmtree(layout.root)
    sound["data"]["overflow"] = "error"
    with pytest.raises(DataError, match=r"low/long\.wav"):
        heard(run, sound, {"kind": "features"}, max_steps=1)
