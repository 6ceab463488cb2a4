"""Faults of sound clips: files that can't be read, clips of nothing, clips of several rates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tlscale.errors import DataError
from tlscale.sources.clips import decode
from tlscale.sources.doctor.finding import Finding, Kind, tally
from tlscale.sources.doctor.part import Part
from tlscale.sources.paths import resolve
from tlscale.sources.rows import describe

_FILES = 1_000
_FIX = "replace the file or remove it"


def check(part: Part) -> list[Finding]:
    """All findings on the clips of `part`; of many files, evenly spaced ones are read."""
    step = max(1, -(-len(part.rows) // _FILES))
    looked = list(zip(part.values, part.rows, strict=True))[::step]
    hits: list[tuple[Kind, str]] = []
    rates: dict[str, int] = {}
    for one, row in looked:
        if "audio" in one:
            fault, rate = _clip(one["audio"], part)
            hits += [(fault, row.where)] if fault is not None else []
            rates |= {row.where: rate} if rate else {}
    usual = Counter(rates.values()).most_common(1)
    if len(set(rates.values())) > 1:
        text = f"another rate than most, which have {usual[0][0]:,} samples a second"
        kind = Kind("warning", "rate", text, "resampled in the run; check that nothing was mislabelled")
        hits += [(kind, where) for where, rate in rates.items() if rate != usual[0][0]]
    return tally(part.role, hits, len(looked))


def _clip(found: Any, part: Part) -> tuple[Kind | None, int]:
    """What is wrong with one clip, and its rate."""
    if isinstance(found, dict) and found.get("bytes"):
        found = found["bytes"]
    if isinstance(found, str):
        folder = resolve(part.source.path or ".").resolve().parent
        found = (folder / found).resolve()
        if not found.is_relative_to(folder):
            return Kind("error", "audio", "the clip's path leaves the folder of the data file", _FIX), 0
    if not isinstance(found, (Path, bytes)):
        text = f"the clip is {describe(found)}"
        return Kind("error", "audio", text, "a path or the bytes of a WAV file is needed"), 0
    if isinstance(found, Path) and not found.is_file():
        return Kind("error", "audio", "the clip's file isn't there", "correct the path"), 0
    try:
        clip = decode(found)
    except DataError as error:
        return Kind("error", "audio", f"the clip {error}", _FIX), 0
    if clip.samples.min() == clip.samples.max():
        fix = "listen to these; drop them if broken"
        return Kind("warning", "silent-clip", "the clip is silent", fix), clip.rate
    return None, clip.rate
