"""npz archives of numpy arrays and parquet files as tables."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlscale.errors import DataError
from tlscale.sources.rows import Row
from tlscale.sources.table import Table

# The parts of a file are named before it is opened: (name of the archive, or "" for a single one).
_Archives = Mapping[str, "Path | bytes"]


def from_npz(content: Path | bytes, name: str) -> Table:
    """The arrays of one npz file; each array is a column, its first dimension the rows."""
    return _arrays({"": content}, name)


def from_npz_folder(folder: Path) -> Table:
    """All npz files of a folder; columns are named like "x_test.npz/arr_0"."""
    return _arrays({f"{path.name}/": path for path in sorted(folder.glob("*.npz"))}, folder.name)


def _arrays(archives: _Archives, name: str) -> Table:
    members = {
        f"{prefix}{array}": (prefix, array)
        for prefix, content in archives.items()
        for array in _names(content, f"{name}/{prefix}".rstrip("/"))
    }

    def rows(names: tuple[str, ...]) -> tuple[Row, ...]:
        wanted = [column for column in names if column in members]
        arrays = {}
        for column in wanted:
            prefix, array = members[column]
            arrays[column] = _array(archives[prefix], array, f"{name}: {column}")
        counts = {column: len(array) for column, array in arrays.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{column} {count}" for column, count in counts.items())
            raise DataError(f"{name}: arrays of one source need as many rows each: {listed}")
        count = next(iter(counts.values()), 0)
        return tuple(
            Row({column: array[i] for column, array in arrays.items()}, f"{name}[{i}]")
            for i in range(count)
        )

    return Table(tuple(members), rows)


def _names(content: Path | bytes, where: str) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content) if isinstance(content, bytes) else content) as archive:
            return [member.removesuffix(".npy") for member in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: is no npz file: {error}") from error


def _array(content: Path | bytes, array: str, where: str) -> Any:
    import numpy as np

    source = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        with np.load(source, allow_pickle=False) as archive:
            found = archive[array]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: can't be read without running code from it: {error}") from error
    if found.ndim == 0:
        raise DataError(f"{where}: is a single value; a column needs one entry per row")
    return found


def from_parquet(content: Path | bytes, name: str) -> Table:
    """A parquet file; column names and the number of rows come from its footer.

    Raises:
        DataError: it is no parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def source() -> Any:
        return io.BytesIO(content) if isinstance(content, bytes) else content

    try:
        footer = pq.ParquetFile(source())
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: is no parquet file: {error}") from error

    def rows(names: tuple[str, ...]) -> tuple[Row, ...]:
        wanted = [column for column in footer.schema_arrow.names if column in names]
        try:
            table = pq.read_table(source(), columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{name}: can't be read: {error}") from error
        records = table.to_pylist() if wanted else [{}] * footer.metadata.num_rows
        return tuple(Row(record, f"{name}[{i}]") for i, record in enumerate(records))

    return Table(tuple(footer.schema_arrow.names), rows, count=footer.metadata.num_rows)
