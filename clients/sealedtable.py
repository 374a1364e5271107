"""A sealed data set as a table: columns are opened by name, in pieces, in memory alone.

Made by the vault; nothing else has the keys. Column by column, pieces hold the same rows, since all columns were sealed
in pieces of the same sizes; what does not fit together was changed.
"""

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from coterie.clients.tables.table import Table
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.fields.errors import SealFault
from coterie.privacy.fields.manifest import Manifest, Stream, column_context
from coterie.privacy.fields.streams import OpenedStream
from coterie.privacy.fields.wiping import wiped

__all__ = ["SealedTable", "Unwrap", "place_of", "schema_of", "schema_text"]

Unwrap = Callable[[Manifest, Sequence[Stream]], list[bytearray]]


class SealedTable(Table):
    """A data set of the vault; its `repr` shows nothing of it.

    Args:
        folder: Where its streams are.
        manifest: What it is made of.
        inside: What the manifest's sealed part says.
        unwrap: Returns the data keys of some streams, to be wiped.
    """

    def __init__(self, folder: Path, manifest: Manifest, inside: dict[str, Any], unwrap: Unwrap) -> None:
        self._folder, self.manifest, self._unwrap = folder, manifest, unwrap
        self._schema, self.rows = schema_of(inside["columns"]), int(inside["rows"])
        self.inside = inside

    def __repr__(self) -> str:
        """Return a text without any name, size or value."""
        return "SealedTable(...)"

    @property
    def place(self) -> str:
        """Which data set of the vault it is."""
        return place_of(self.manifest)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._schema

    @property
    def digest(self) -> str:
        """What the sealed columns are: another text where anything was sealed anew."""
        return hashlib.sha256("".join(s.sha256 for s in self.manifest.streams).encode()).hexdigest()

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, opened piece by piece; the memory does not grow with the rows.

        Raises:
            SealFault: A stream is damaged, or does not fit the others.
            KeyFault: The keys cannot be had.
        """
        chosen = self._chosen(names)
        schema = pa.schema([self._schema.field(name) for name in names])
        with contextlib.ExitStack() as stack:
            keys = stack.enter_context(wiped(self._unwrap(self.manifest, chosen)))
            opened = [
                stack.enter_context(OpenedStream(self._folder / s.file, key, self._context(name, s)))
                for name, s, key in zip(names, chosen, keys, strict=True)
            ]
            rows = 0
            with self._damage():
                readers = [pa.ipc.open_stream(pa.PythonFile(cast("BinaryIO", stream), mode="r")) for stream in opened]
                while batches := [batch for reader in readers if (batch := _next(reader)) is not None]:
                    if len(batches) != len(readers) or len({batch.num_rows for batch in batches}) != 1:
                        raise self._misfit()
                    rows += batches[0].num_rows
                    yield pa.RecordBatch.from_arrays([batch.column(0) for batch in batches], schema=schema)
                if any(stream.read(1) for stream in opened) or (opened and rows != self.rows):
                    raise self._misfit()

    def check(self, names: Sequence[str]) -> None:
        """Check that columns are there, each once.

        Raises:
            ContractFault: One is not.
        """
        known = self._schema.names
        faults = [
            Fault(f"{self.place} column {name}", "is missing" if name not in known else "is there twice", _COLUMN)
            for name in names
            if known.count(name) != 1
        ]
        if faults:
            raise ContractFault(*faults)

    def _chosen(self, names: Sequence[str]) -> list[Stream]:
        self.check(names)
        known = self._schema.names
        return [self.manifest.streams[known.index(name)] for name in names]

    def _context(self, name: str, stream: Stream) -> bytes:
        return column_context(self.manifest.whose, name, stream)

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Name what Arrow cannot read by its place: whoever sealed it wrote something else, which is not passed on."""
        try:
            yield
        except (pa.ArrowException, EOFError, OSError):  # Arrow's word for too few bytes is an OSError
            raise self._misfit() from None

    def _misfit(self) -> SealFault:
        fix = "restore the vault together with its ledger, or seal the table again"
        return SealFault(Fault(self.place, "has columns that do not fit together", fix))


_COLUMN = "seal a table that has it once, or ask for a plan without it"


def _next(reader: pa.ipc.RecordBatchStreamReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def place_of(manifest: Manifest) -> str:
    """Return what faults call a data set of the vault."""
    return f"the vault's {manifest.whose.dataset}"


def schema_text(schema: pa.Schema) -> list[dict[str, str]]:
    """Return the columns of a schema as JSON values: names, and types as Arrow serialises them."""
    return [
        {"name": field.name, "type": base64.b64encode(pa.schema([pa.field("", field.type)]).serialize()).decode()}
        for field in schema
    ]


def schema_of(columns: Sequence[dict[str, str]]) -> pa.Schema:
    """Return the schema that `schema_text` wrote."""
    types = (pa.ipc.read_schema(pa.py_buffer(base64.b64decode(column["type"]))).field(0).type for column in columns)
    return pa.schema([pa.field(column["name"], kind) for column, kind in zip(columns, types, strict=True)])
