"""Days out of cells: of dates and times as they are, of texts that begin with an ISO date; other ways are counted."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["SHAPES", "days_of", "is_time", "shapes_of"]

SHAPES: Mapping[str, str] = {
    "31/12/2025": r"^\d{1,2}/\d{1,2}/\d{4}\b",
    "31/12/25": r"^\d{1,2}/\d{1,2}/\d{2}\b",
    "31.12.2025": r"^\d{1,2}\.\d{1,2}\.\d{4}\b",
    "31.12.25": r"^\d{1,2}\.\d{1,2}\.\d{2}\b",
    "31-12-2025": r"^\d{1,2}-\d{1,2}-\d{4}\b",
    "2025/12/31": r"^\d{4}/\d{1,2}/\d{1,2}\b",
    "2025-1-31": r"^\d{4}-(\d-\d{1,2}|\d{2}-\d)\b",
    "20251231": r"^(19|20)\d{6}(\D|$)",
    "1767139200": r"^\d{10}(\d{3})?(\.\d+)?$",
}
"""Ways in which days are often written, each as the last day of 2025 (its month and day may be the other way round)."""

_ISO_DATE = 10  # characters


def is_time(kind: pa.DataType) -> bool:
    """Tell whether a type is one of dates or times."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def days_of(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return days since 1970-01-01, and where there is one.

    Args:
        column: Dates, times (of which the day in UTC counts), or texts that begin as "2025-12-31".
    """
    if not is_time(column.type):
        dates = pc.utf8_slice_codeunits(pc.cast(column, pa.string()), 0, _ISO_DATE)
        column = pc.cast(pc.strptime(dates, format="%Y-%m-%d", unit="s", error_is_null=True), pa.date32())
        # The library takes 30 February for a day in March.
        column = pc.if_else(pc.equal(pc.cast(column, pa.string()), dates), column, None)
    days = pc.cast(pc.cast(column, pa.date32(), safe=False), pa.int32())
    return pc.fill_null(days, 0).to_numpy(), days.is_valid().to_numpy(zero_copy_only=False)


def shapes_of(column: pa.Array) -> Mapping[str, int]:
    """Return how many texts are days that are written in another way, by way; it shows none of them.

    Args:
        column: Cells that `days_of` found no day in.
    """
    if is_time(column.type):
        return {}
    texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    counts = {shape: pc.sum(pc.match_substring_regex(texts, pattern)).as_py() for shape, pattern in SHAPES.items()}
    return {shape: count for shape, count in counts.items() if count}
