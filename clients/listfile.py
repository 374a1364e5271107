"""The file of lists: written as they come, there whole or not at all, readable by its owner alone."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.models.reranking import Lists
from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import Fault, FileFault

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
        output: The file; never overwritten.
        customers: Every customer's name, in the order of their positions.
        codes: Every item's code.

    Raises:
        FileFault: It exists or cannot be written.
    """

    def __init__(self, output: Path, customers: pa.Array, codes: Sequence[str]) -> None:
        self.rows = 0
        self._output, self._beside = output, output.with_name(output.name + ".new")
        self._customers, self._codes = customers, pa.array(codes, pa.string())
        self._waiting: list[pa.Table] = []
        self._file: IO[bytes] | None = None
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """Open it."""
        with self._told():
            self._beside.unlink(missing_ok=True)  # of an earlier crash
            self._file = os.fdopen(os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            self._writer = pyarrow.parquet.ParquetWriter(self._file, _SCHEMA, compression="zstd")
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
        with self._told():
            if self._writer is not None and self._waiting:
                self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting = []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Put it in its place, or remove what there is of it."""
        if kind is not None:
            self._drop()
            return
        self._flush()
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
        except OSError as error:
            self._drop()
            why = error.strerror or "the system refused"
            fix = "free some space or check rights"
            raise FileFault(Fault(str(self._output), f"cannot be written ({why})", fix)) from None

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None and not self._file.closed:
                # What is held back goes nowhere; a writer that is not ended would try again when it is forgotten.
                with Path(os.devnull).open("wb") as nothing:
                    os.dup2(nothing.fileno(), self._file.fileno())
                if self._writer is not None:
                    self._writer.close()
                self._file.close()
            self._beside.unlink(missing_ok=True)
