"""A table that is in memory already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from coterie.clients.tables.table import PIECE, Table

__all__ = ["HeldTable"]


@dataclass(frozen=True, repr=False)
class HeldTable(Table):
    """Rows in memory, as made-up customers are; its `repr` shows nothing of them.

    Args:
        rows: The rows.
        called: Where they come from, in words for an error.
    """

    rows: pa.Table
    called: str = "the table"

    def __repr__(self) -> str:
        """Return a text without any name, size or value."""
        return "HeldTable(...)"

    @property
    def place(self) -> str:
        """Where they come from."""
        return self.called

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self.rows.schema

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order."""
        yield from self.rows.select(list(names)).to_batches(max_chunksize=PIECE)
