"""Small steps that every source takes: counting by customer, and one table for each partner.

Everything works on whole columns with numpy; a row is never looked at on its own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Ints", "by_partner", "codes", "distinct", "share"]

Ints = npt.NDArray[np.int64]


def by_partner(table: pa.Table, partners: pa.Array) -> dict[str, pa.Table]:
    """Split a table by partner, keeping the order of the rows.

    Args:
        table: All rows.
        partners: The partner of each row.

    Returns:
        Partner name -> its rows, partners in alphabetical order.
    """
    encoded, names = codes(partners)
    order = sorted(range(len(names)), key=names.__getitem__)
    return {names[i]: table.take(pa.array(np.flatnonzero(encoded == i))) for i in order}


def codes(column: pa.ChunkedArray | pa.Array) -> tuple[Ints, list[Any]]:
    """Number the values of a column in their order of appearance.

    Args:
        column: A column without missing values.

    Returns:
        The number of each row's value, and the values by number.
    """
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    encoded = chunked.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def distinct(group: Ints, value: Ints, groups: int) -> Ints:
    """Count the different values in each group.

    Args:
        group: Group of each row, in 0..groups-1.
        value: Value of each row, not negative.
        groups: Number of groups.

    Returns:
        The count for each group.
    """
    width = int(value.max(initial=0)) + 1
    return np.bincount(np.unique(group * width + value) // width, minlength=groups)


def share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return part / whole, and 0 where the whole is 0."""
    result = np.zeros(len(whole))
    np.divide(part, whole, out=result, where=whole > 0)
    return result
