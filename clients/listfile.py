"""The file of lists: written as they come, there whole or not at all, readable by its owner alone."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.tables.newfile import NewFile
from coterie.models.reranking import Lists

__all__ = ["ListFile"]

_SCHEMA = pa.schema(
    {
        "customer": pa.string(),
        "rank": pa.int32(),
        "item": pa.string(),
        "score": pa.float32(),
        "reasons": pa.list_(pa.string()),
    }
)
_GROUP = 1 << 17  # rows held back for a row group


class ListFile:
    """A Parquet file of recommendations, to be used in a `with` block; an error inside leaves nothing behind.

    Args:
        output: The file, ending in .parquet; never overwritten.
        customers: Every customer's name, in the order of their positions.
        codes: Every item's code.

    Raises:
        FileFault: It exists or cannot be written.
    """

    def __init__(self, output: Path, customers: pa.Array, codes: Sequence[str]) -> None:
        self.rows = 0
        self._file = NewFile(output, _SCHEMA)
        self._customers, self._codes = customers, pa.array(codes, pa.string())
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Self:
        """Open it."""
        self._file.__enter__()
        return self

    def add(self, chosen: NDArray[np.int64], lists: Lists, reasons: pa.Array) -> None:
        """Write the lists of some customers.

        Args:
            chosen: Positions of the customers, shape (customers,).
            lists: Theirs, in the same order.
            reasons: Of every item in the lists, row after row.

        Raises:
            FileFault: It cannot be written.
        """
        there = lists.items >= 0
        ranks = np.cumsum(there, axis=1)[there]
        columns = [
            self._customers.take(pa.array(np.repeat(chosen, there.sum(axis=1)))),
            pa.array(ranks.astype(np.int32)),
            self._codes.take(pa.array(lists.items[there])),
            pa.array(lists.scores[there]),
            reasons,
        ]
        self._waiting.append(pa.table(columns, schema=_SCHEMA))
        self.rows += len(ranks)
        if sum(map(len, self._waiting)) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.add(pa.concat_tables(self._waiting))
        self._waiting = []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Put it in its place, or remove what there is of it."""
        if kind is None:
            self._flush()
        self._file.__exit__(kind, error, at)
