"""Sealing a table: from its pieces to sealed columns, without a copy of it on disk or whole in memory.

A version is staged beside the current one and can be read (`Staged.table`) before anything is changed; `commit` makes
it the current one. What is staged and not committed is swept away by the next writer.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from coterie.clients.sealedtable import SealedTable, place_of, schema_text
from coterie.clients.vault import Vault
from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.fields.keysource import KEY_BYTES
from coterie.privacy.fields.manifest import Manifest, Stream, column_context, key_context
from coterie.privacy.fields.streams import SealedStream
from coterie.privacy.fields.wiping import wiped

__all__ = ["See", "Staged", "or_swept", "seal_columns", "stage", "unseen"]

See = Callable[[int], None]
"""Told, after each piece, how many rows are sealed."""


def unseen(rows: int) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class Staged:
    """A version of a data set that is durable, and not current yet.

    Args:
        vault: Whose.
        manifest: What would become current.
    """

    vault: Vault
    manifest: Manifest

    @property
    def place(self) -> str:
        """What faults call its table."""
        return place_of(self.manifest)

    def table(self) -> SealedTable:
        """Return it for reading; raises as `Vault.table_of`."""
        return self.vault.table_of(self.manifest)

    def commit(self, what: str) -> None:
        """Make it the current version; raises as `Vault.commit`."""
        self.vault.commit(self.manifest, what)

    def drop(self) -> None:
        """Remove it; the current version stays."""
        self.vault.tidy(self.manifest.whose.dataset)


def stage(
    vault: Vault,
    dataset: str,
    pieces: Iterable[pa.RecordBatch],
    *,
    schema: pa.Schema,
    customer: str,
    see: See = unseen,
) -> Staged:
    """Seal a whole table as the next version of a data set, every column under a new data key.

    Args:
        vault: The vault.
        dataset: Which data set.
        pieces: The rows; what they raise is raised, and nothing is changed.
        schema: Names and types of the pieces' columns.
        customer: Name of the column that names customers.
        see: Is told of progress.

    Raises:
        KeyFault: The key source does not answer.
        FileFault: The disk is full, or the vault cannot be written; nothing is changed.
    """
    version = vault.begin(dataset)
    with or_swept(vault, dataset):
        streams, rows = seal_columns(vault, dataset, version, (pieces, schema), see=see)
        inside = {"columns": schema_text(schema), "rows": rows, "customer": customer}
        return Staged(vault, vault.draft(dataset, version, streams, inside))


def seal_columns(
    vault: Vault,
    dataset: str,
    version: int,
    table: tuple[Iterable[pa.RecordBatch], pa.Schema],
    *,
    see: See = unseen,
) -> tuple[list[Stream], int]:
    """Seal columns into streams of a version, and return them with their wrapped keys, and the count of rows.

    Called within `or_swept`.

    Raises:
        As `stage`, and OSError where the disk is full.
    """
    pieces, schema = table
    whose = vault.whose(dataset)
    drafts = [Stream(secrets.token_hex(16), version, 0, "", b"") for _ in schema]
    with _keys(len(drafts)) as keys:
        contexts = [column_context(whose, name, s) for name, s in zip(schema.names, drafts, strict=True)]
        folder, files, rows = vault.streams(dataset), list[SealedStream](), 0
        try:
            files += [SealedStream(folder / s.file, k, c) for s, k, c in zip(drafts, keys, contexts, strict=True)]
            rows = _write(files, pieces, schema, see)
            for file in files:
                file.close()
        finally:
            for file in files:
                file.abandon()
        sync_folder(folder)
        wrapped = vault.keys.wrap(keys, [key_context(whose, s.file) for s in drafts])
    return [
        replace(draft, size=file.size, sha256=file.digest, key=key)
        for draft, file, key in zip(drafts, files, wrapped, strict=True)
    ], rows


def _write(files: Sequence[SealedStream], pieces: Iterable[pa.RecordBatch], schema: pa.Schema, see: See) -> int:
    """Write every column of every piece into its stream, as an Arrow stream of its own."""
    schemas = [pa.schema([field]) for field in schema]
    rows = 0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(pa.ipc.new_stream(pa.PythonFile(_Sink(file), mode="w"), one))
            for file, one in zip(files, schemas, strict=True)
        ]
        for piece in pieces:
            for index, (writer, one) in enumerate(zip(writers, schemas, strict=True)):
                writer.write_batch(pa.RecordBatch.from_arrays([piece.column(index)], schema=one))
            rows += piece.num_rows
            see(rows)
    return rows


class _Sink:
    """A sealed stream as Arrow's writer wants it: its buffers are no bytes to `cryptography` unless they are cast."""

    closed = False

    def __init__(self, file: SealedStream) -> None:
        self._file = file

    def write(self, data: Any) -> int:  # noqa: ANN401 - Arrow hands on whatever holds bytes
        return self._file.write(memoryview(data).cast("B"))

    def flush(self) -> None:
        """Nothing is held back here; what the cipher holds back comes with its next chunk."""

    def close(self) -> None:
        """The stream's owner closes it."""


@contextlib.contextmanager
def _keys(count: int) -> Iterator[list[bytearray]]:
    with wiped([bytearray(secrets.token_bytes(KEY_BYTES)) for _ in range(count)]) as keys:
        yield keys


@contextlib.contextmanager
def or_swept(vault: Vault, dataset: str) -> Iterator[None]:
    """Sweep away what was written where it comes to no end, and tell a full disk in our words.

    Raises:
        FileFault: The disk is full, or the vault cannot be written.
    """
    try:
        yield
    except OSError as error:
        vault.tidy(dataset)
        place, rule = str(vault.streams(dataset)), f"cannot be written ({error.strerror})"
        fix = "free some space or check its rights; the vault is as it was"
        raise FileFault(Fault(place, rule, fix)) from None
    except BaseException:
        vault.tidy(dataset)
        raise
