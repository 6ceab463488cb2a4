"""Sound clips to the spectrograms that a model's feature extractor makes (Gong et al. 2021, AST)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from tlscale.data.labelled import class_index
from tlscale.data.pixels import confined, folder_of
from tlscale.data.tokens import Overflow, too_long
from tlscale.data.types import Example, Made
from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import Columns, Row, value
from tlscale.sources.clips import decode
from tlscale.sources.rows import describe

# samples in one frame of a spectrogram, and between the beginnings of two; transformers fixes both
FRAME, HOP = 400, 160


@dataclass(frozen=True)
class Spectrogram:
    """`values` float32 [frames, bins], padded or cut to the extractor's length; `frames` before that."""

    values: torch.Tensor
    frames: int


def clips(
    rows: Sequence[Row],
    source: Source,
    columns: Columns,
    extractor: Any,
    *,
    labels: tuple[str, ...],
    overflow: Overflow,
) -> list[Made]:
    """Clips with class indices; `pixels` is the spectrogram, float32 [frames, bins].

    What is beyond the extractor's length is cut and counted in frames, as longer texts are in tokens.

    Raises:
        DataError: a clip that can't be read, an unknown label, or with overflow: error a longer clip.
    """
    made, longest = [], int(extractor.max_length)
    for row in rows:
        index, name = class_index(row, columns, labels)
        heard = spectrogram(row, value(row, columns.by_role["audio"]), folder_of(source), extractor)
        if heard.frames > longest:
            too_long(row.where, heard.frames, longest, overflow)
            if overflow == "drop":
                made.append(Made(()))
                continue
        one = Example(where=row.where, text=row.where, reference=name, label=index, pixels=heard.values)
        made.append(Made((one,), max(0, heard.frames - longest)))
    return made


def spectrogram(row: Row, found: Any, folder: Path | None, extractor: Any) -> Spectrogram:
    """The spectrogram of a clip: a path relative to `folder`, or the bytes of a WAV file.

    A clip of another rate than the extractor's is resampled; channels are averaged.

    Raises:
        DataError: it is neither, or can't be read.
    """
    if isinstance(found, dict) and found.get("bytes"):
        found = found["bytes"]
    if isinstance(found, str):
        found = confined(row, Path(found), folder, "audio")
    if not isinstance(found, (Path, bytes)):
        raise DataError(
            f"{row.where}: audio is {describe(found)}; a path or the bytes of a WAV file is needed"
        )
    try:
        samples = decode(found).at(extractor.sampling_rate)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error
    if len(samples) < FRAME:
        samples = numpy.pad(samples, (0, FRAME - len(samples)))
    made = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    values: torch.Tensor = made["input_values"][0].float()
    return Spectrogram(values, 1 + (len(samples) - FRAME) // HOP)
