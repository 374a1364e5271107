"""A table that is written piece by piece: there whole or not at all, readable by its owner alone, over nothing else."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import Fault, FileFault

__all__ = ["NewFile"]

_KINDS = (".csv", ".parquet")


class NewFile:
    """A CSV or Parquet file, to be used in a `with` block; an error inside leaves nothing behind.

    Args:
        output: The file; never overwritten. Ends in ".csv" or ".parquet".
        schema: Of the pieces.

    Raises:
        FileFault: It is of neither kind, exists, or cannot be written.
    """

    def __init__(self, output: Path, schema: pa.Schema) -> None:
        self._output, self._beside = output, output.with_name(output.name + ".new")
        self._schema = schema
        self._file: IO[bytes] | None = None
        self._writer: pyarrow.csv.CSVWriter | pyarrow.parquet.ParquetWriter | None = None

    @staticmethod
    def check(output: Path) -> None:
        """Check that a file can be made, before there is any work.

        Raises:
            FileFault: It exists, or is neither .csv nor .parquet.
        """
        if output.suffix.lower() not in _KINDS:
            raise FileFault(Fault(str(output), "is neither a .csv nor a .parquet file", "choose one of these endings"))
        if output.exists():
            raise FileFault(Fault(str(output), "exists", "choose another file, or remove it"))

    def __enter__(self) -> Self:
        """Open it."""
        self.check(self._output)
        with self._told():
            self._beside.unlink(missing_ok=True)  # of an earlier crash
            self._file = os.fdopen(os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            if self._output.suffix.lower() == ".csv":
                self._writer = pyarrow.csv.CSVWriter(self._file, self._schema)
            else:
                self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        return self

    def add(self, piece: pa.RecordBatch | pa.Table) -> None:
        """Write a piece; in Parquet it is a row group.

        Raises:
            FileFault: It cannot be written.
        """
        with self._told():
            if self._writer is not None:
                self._writer.write(piece)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Put it in its place, or remove what there is of it."""
        if kind is not None:
            self._drop()
            return
        with self._told():
            if self._writer is not None and self._file is not None:
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
            if self._output.exists():
                raise FileExistsError(0, "another file took its name")
            self._beside.replace(self._output)
            sync_folder(self._output.parent)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:  # Arrow's own texts may hold a cell
            self._drop()
            system = isinstance(error, OSError)
            why = error.strerror or "the system refused" if system else "a column's type does not go into it"
            fix = "free some space or check rights" if system else "write Parquet"
            raise FileFault(Fault(str(self._output), f"cannot be written ({why})", fix)) from None

    def _drop(self) -> None:
        with contextlib.suppress(OSError, pa.ArrowException):
            if self._file is not None and not self._file.closed:
                # What is held back goes nowhere; a writer that is not ended would try again when it is forgotten.
                with Path(os.devnull).open("wb") as nothing:
                    os.dup2(nothing.fileno(), self._file.fileno())
                if self._writer is not None:
                    self._writer.close()
                self._file.close()
        with contextlib.suppress(OSError):
            self._beside.unlink(missing_ok=True)
