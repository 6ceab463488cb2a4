"""Sound clips in WAV files (PCM), as one channel of samples and a rate."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

from tlscale.errors import DataError

SUFFIXES = frozenset((".wav",))
RATES = (1_000, 384_000)
_TYPES = {1: "u1", 2: "<i2", 4: "<i4"}


@dataclass(frozen=True)
class Clip:
    """`samples` float32 [time] between -1 and 1, channels averaged, `rate` of them a second."""

    samples: Any
    rate: int

    def at(self, rate: int) -> Any:
        """The samples at another rate, by a polyphase filter (scipy's `resample_poly`); float32."""
        from scipy.signal import resample_poly

        if rate == self.rate:
            return self.samples
        common = gcd(rate, self.rate)
        return resample_poly(self.samples, rate // common, self.rate // common).astype("float32")


def decode(found: Path | bytes) -> Clip:
    """The clip in a WAV file or its bytes.

    Raises:
        DataError: it is no PCM WAV file, it is cut off or empty, or its rate is out of range.
    """
    try:
        with wave.open(io.BytesIO(found) if isinstance(found, bytes) else str(found), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            promised, content = file.getnframes(), file.readframes(file.getnframes())
    except (OSError, wave.Error, EOFError) as error:
        reason = str(error) or "it ends early"
        raise DataError(f"can't be read as a WAV file of PCM samples: {reason}") from error
    if len(content) != promised * channels * width:
        raise DataError(f"is cut off: its header tells of {promised:,} samples, and not all are there")
    if not promised:
        raise DataError("has no samples")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"has {rate:,} samples a second; from {RATES[0]:,} to {RATES[1]:,} are read")
    return Clip(_samples(content, width).reshape(-1, channels).mean(axis=1), rate)


def _samples(content: bytes, width: int) -> Any:
    """PCM of `width` bytes as float32 between -1 and 1; 8 bits are unsigned, more are signed."""
    import numpy

    if width == 3:
        three = numpy.frombuffer(content, dtype=numpy.uint8).reshape(-1, 3)
        wide = numpy.zeros((len(three), 4), dtype=numpy.uint8)
        wide[:, 1:] = three
        return (wide.reshape(-1).view("<i4") / 2.0**31).astype(numpy.float32)
    if width not in _TYPES:
        raise DataError(f"has samples of {width} bytes; 1 to 4 are read")
    made = numpy.frombuffer(content, dtype=_TYPES[width]).astype(numpy.float64)
    scaled = (made - 128) / 128 if width == 1 else made / 2.0 ** (8 * width - 1)
    return scaled.astype(numpy.float32)
