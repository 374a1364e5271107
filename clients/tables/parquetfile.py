"""Parquet as a table: one file, read a piece at a time however large its row groups are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet

from coterie.clients.tables.refused import refused
from coterie.clients.tables.table import PIECE, checked
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["ParquetFile"]

_BUFFER = 1 << 16  # bytes read ahead of each column


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file.

    Args:
        path: The file.
        schema: Its columns.
    """

    path: Path
    schema: pa.Schema

    @classmethod
    def at(cls, path: Path) -> Self:
        """Read a file's schema.

        Raises:
            ContractFault: The file is missing, a folder, unreadable, cut short or not Parquet, or a column's name is
                not text.
        """
        try:
            with _opened(path) as file:
                schema = file.schema_arrow
                schema.names  # noqa: B018 - names that are not text are an error here, not later
        except UnicodeDecodeError:
            rule = "has a column whose name is not UTF-8"
            raise ContractFault(Fault(str(path), rule, "rename the column")) from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise refused(path, error) from None
        return cls(path, schema)

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, as `Table` says.

        Args:
            names: Columns of each piece.

        Raises:
            ContractFault: A column is not there once, or the file has other columns by now, or is cut short or damaged.
        """
        checked(names, self.schema, self.place)
        try:
            with _opened(self.path) as file:
                if not file.schema_arrow.equals(self.schema):
                    rule = "has other columns than a moment ago"
                    raise ContractFault(Fault(self.place, rule, "leave it alone while it is read"))
                for batch in file.iter_batches(batch_size=PIECE, columns=list(names), use_threads=False):
                    yield batch.select(list(names))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise refused(self.path, error) from None


def _opened(path: Path) -> pyarrow.parquet.ParquetFile:
    # One file: the library would also take folders, and columns out of the names of folders. And nothing of it ahead of
    # its piece: with `pre_buffer` all row groups are in memory in the end.
    return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
