"""Features: public encodings from columns to a matrix.

An encoding is a pure function of public constants (bounds, edges, vocabularies), so applying it costs no
privacy budget. Every column becomes a block of the matrix:

    numeric                 one number in [-1, 1], 0 at the middle of its bounds
    numeric with edges      one indicator per bin [edge, next edge)
    categorical             one indicator per word of the vocabulary
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Binned", "Block", "Categorical", "Encoding", "Numeric", "encode", "reference"]

MISSING = -1  # code of a categorical or binned value that is absent


@dataclass(frozen=True)
class Numeric:
    """A number scaled by its public bounds.

    Args:
        name: Column.
        low: Least value.
        high: Greatest value.
    """

    name: str
    low: float
    high: float

    @property
    def width(self) -> int:
        """Columns of the matrix that it takes."""
        return 1


@dataclass(frozen=True)
class Binned:
    """A number as the bin that it falls in.

    Args:
        name: Column.
        edges: Inner edges, ascending; n edges make n + 1 bins.
    """

    name: str
    edges: tuple[float, ...]

    @property
    def width(self) -> int:
        """Columns of the matrix that it takes."""
        return len(self.edges) + 1


@dataclass(frozen=True)
class Categorical:
    """A word of a public vocabulary, given as its index; -1 for none of them.

    Args:
        name: Column.
        values: The vocabulary.
    """

    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """Columns of the matrix that it takes."""
        return len(self.values)


Block = Numeric | Binned | Categorical


@dataclass(frozen=True)
class Encoding:
    """The blocks of a feature matrix, in order."""

    blocks: tuple[Block, ...]

    @property
    def width(self) -> int:
        """Columns of the whole matrix."""
        return sum(block.width for block in self.blocks)

    def spans(self) -> list[slice]:
        """Return where each block lies in the matrix."""
        ends = np.cumsum([block.width for block in self.blocks]).tolist()
        return [slice(end - block.width, end) for block, end in zip(self.blocks, ends, strict=True)]


def encode(encoding: Encoding, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Encode columns as a matrix.

    Args:
        encoding: Public.
        columns: For each block's name an array of shape (rows,): numbers for numeric and binned blocks (NaN
            where missing), vocabulary indices for categorical ones (-1 where missing).

    Returns:
        Shape (rows, encoding.width). A missing value is encoded as the block's `reference`.
    """
    rows = len(next(iter(columns.values())))
    matrix = np.zeros((rows, encoding.width), dtype=np.float32)
    for block, span in zip(encoding.blocks, encoding.spans(), strict=True):
        values = columns[block.name]
        if isinstance(block, Numeric):
            scaled = (2 * values - block.low - block.high) / (block.high - block.low)
            matrix[:, span.start] = np.where(np.isnan(values), 0.0, scaled)
        else:
            _indicate(matrix[:, span], block, values)
    return matrix


def reference(encoding: Encoding) -> NDArray[np.float32]:
    """Return the row that stands for "nothing known": the middle of each block, shape (width,)."""
    middles = [
        np.zeros(1) if isinstance(block, Numeric) else np.full(block.width, 1 / block.width)
        for block in encoding.blocks
    ]
    return np.concatenate(middles).astype(np.float32)


def _indicate(part: NDArray[np.float32], block: Binned | Categorical, values: NDArray[np.float64]) -> None:
    if isinstance(block, Binned):
        codes = np.searchsorted(block.edges, values, side="right")
        absent = np.isnan(values)
    else:
        codes = values.astype(np.int64)
        absent = codes == MISSING
    part[np.flatnonzero(~absent), codes[~absent]] = 1.0
    part[absent] = 1 / block.width
