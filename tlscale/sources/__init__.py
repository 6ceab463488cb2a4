"""Reading data files into rows, without torch: where rows come from and what their columns mean."""

from tlscale.sources.formats import Columns, Format, infer_format, map_columns, place
from tlscale.sources.paths import resolve
from tlscale.sources.read import Survey, columns, read, records, survey
from tlscale.sources.rows import Row, label, label_names, text, value
from tlscale.sources.selection import split

__all__ = [
    "Columns",
    "Format",
    "Row",
    "Survey",
    "columns",
    "infer_format",
    "label",
    "label_names",
    "map_columns",
    "place",
    "read",
    "records",
    "resolve",
    "split",
    "survey",
    "text",
    "value",
]
