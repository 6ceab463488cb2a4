"""Data sets of the Hub, through the `datasets` library, at the revision that the recipe pins."""

from __future__ import annotations

from typing import Any

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources.rows import Row
from tlscale.sources.table import Table


def from_hub(source: Source) -> Table:
    """The table of one split; class numbers are replaced by the data set's own class names.

    Raises:
        DataError: it can't be found, reached or read.
    """
    import datasets

    where = f"hub:{source.hub}[{source.split}]"
    try:
        found: Any = datasets.load_dataset(
            source.hub, source.name, split=source.split, revision=source.revision
        )
    # The library reports unknown configurations and splits as ValueError, the network as OSError.
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{where}: can't be loaded: {error}; check hub, name, split, revision and the network "
            "(HF_HUB_OFFLINE=1 uses what was downloaded before)"
        ) from error
    classes = {
        column: feature
        for column, feature in found.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }

    def rows(names: tuple[str, ...]) -> tuple[Row, ...]:
        wanted = found.select_columns([column for column in found.column_names if column in names])
        return tuple(Row(_named(record, classes), f"{where}[{i}]") for i, record in enumerate(wanted))

    return Table(tuple(found.column_names), rows, count=len(found))


def _named(record: dict[str, Any], classes: dict[str, Any]) -> dict[str, Any]:
    """`record` with class numbers as names; -1 is how the Hub marks a row without label."""
    return {
        column: _class_name(value, classes[column]) if column in classes else value
        for column, value in record.items()
    }


def _class_name(value: int | None, feature: Any) -> str | None:
    return None if value is None or value < 0 else feature.int2str(value)
