"""Names, shapes and dtypes of a safetensors checkpoint, from the files' headers alone.

The format is https://huggingface.co/docs/safetensors: eight bytes of header length, a JSON header, then
the data that the header's offsets partition without holes. A header that lies about any of this is
refused, because every figure of the plan would rest on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from tlscale.errors import PlanError, nearest

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
MAX_HEADER = 100_000_000

# bits of one element of each dtype of the format
BITS: dict[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
}
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: the format's name of its dtype, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file by name.

    Raises:
        PlanError: the header is cut short, no JSON, or disagrees with itself or with the file's size.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > MAX_HEADER or 8 + length > size:
            raise _corrupt(path, f"it announces a header of {length:,} bytes in a file of {size:,}")
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _corrupt(path, f"its header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise _corrupt(path, "its header is not a JSON object")
    entries.pop("__metadata__", None)
    return _checked(path, entries, size - 8 - length)


def _checked(path: Path, entries: Mapping[str, Any], data_bytes: int) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("dtype") not in BITS:
            raise _corrupt(path, f"tensor {name} has no dtype that is known: {entry!r:.80}")
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
            raise _corrupt(path, f"tensor {name} has a malformed shape or data_offsets")
        start, end = offsets
        needed = math.prod(shape) * BITS[entry["dtype"]] // 8
        if end - start != needed:
            raise _corrupt(
                path, f"tensor {name} of shape {shape} needs {needed:,} bytes and has {end - start:,}"
            )
        tensors[name] = Stored(entry["dtype"], tuple(shape))
        spans.append((start, end, name))
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            word = "overlaps the tensor before it" if start < position else "leaves a hole before it"
            raise _corrupt(path, f"tensor {name} {word} (offset {start:,}, expected {position:,})")
        position = end
    if position != data_bytes:
        raise _corrupt(path, f"its tensors take {position:,} bytes and the file holds {data_bytes:,}")
    return tensors


def _counts(value: object) -> TypeGuard[list[int]]:
    """Whether `value` is a list of whole numbers that are not negative."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _corrupt(path: Path, reason: str) -> PlanError:
    return PlanError(f"{path}: not a valid safetensors file: {reason}; copy or download it again")


def read_folder(folder: Path) -> dict[str, Stored] | None:
    """All tensors of the checkpoint in `folder`, sharded or not; `None` where there is no safetensors.

    Raises:
        PlanError: a shard is missing, or index and shards disagree, or a header is corrupt.
    """
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        return None
    listed = weight_map(folder / INDEX)
    shards: dict[str, dict[str, Stored]] = {}
    for shard in sorted(set(listed.values())):
        if not (folder / shard).is_file():
            raise PlanError(f"{folder / INDEX} names {shard}, which is not in the folder; download it")
        shards[shard] = read_header(folder / shard)
    tensors: dict[str, Stored] = {}
    for name, shard in listed.items():
        if name not in shards[shard]:
            raise PlanError(f"{folder / INDEX} places {name} in {shard}, which does not have it")
        tensors[name] = shards[shard][name]
    return tensors


def weight_map(index: Path) -> dict[str, str]:
    """The `weight_map` of a sharded checkpoint's index: tensor name to file name.

    Raises:
        PlanError: the index is not JSON, or a file name in it leaves the folder.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise PlanError(f"{index}: has no weight_map")
    for name, shard in table.items():
        plain = isinstance(shard, str) and shard.endswith(".safetensors")
        if not plain or "/" in shard or "\\" in shard:
            raise PlanError(f"{index}: {name} is placed in {shard!r}, not a safetensors file beside it")
    return table


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        PlanError: it can't be read or is none; the message has the line.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PlanError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path}: can't be read: {error}") from error
    if not isinstance(value, dict):
        raise PlanError(f"{path}: holds no JSON object")
    return value


def existing_folder(given: str) -> Path:
    """The folder at `given`.

    Raises:
        PlanError: there is none; names its neighbours and the nearest one.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise PlanError(f"model.model_name_or_path: {given} is a file; give the folder that holds it")
    neighbours = (
        sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
    )
    near = nearest(folder.name, neighbours)
    hint = (
        f"did you mean {folder.parent / near}?" if near else f"folders there: {', '.join(neighbours[:12])}"
    )
    if not neighbours:
        hint = "the folder around it has no folders" if folder.parent.is_dir() else "nor the one around it"
    raise PlanError(f"model.model_name_or_path: {given}: no such folder; {hint}")
