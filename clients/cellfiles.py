"""Tables for exchange, sealed cell by cell, opened again, and searched (`docs/formats/cells.md`).

Rules this module enforces:
- every column is sealed but those that the contract marks ordinary and the one with row keys: what the contract does
  not know is not shown either;
- the contract, not the table, says which cells are sealed, and how: plaintext in their place is refused;
- a file is written whole or not at all, in pieces, and over nothing else;
- no fault has a value, a cell or a row's key in it, but the number of the row.

What is opened is the partner's own customers' data, in plain: as with scores, an explicit exception to "no plaintext on
disk".
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from coterie.clients.cellcolumns import CellColumn, Rows, key_of
from coterie.clients.cellkeys import count_cells, fresh_keys, keys_for
from coterie.clients.cellring import CellKey, lent, read_ring
from coterie.clients.sealing import See, unseen
from coterie.clients.tables.celltexts import kind_of, name_of, texts_of
from coterie.clients.tables.newfile import NewFile
from coterie.clients.tables.table import Table, checked
from coterie.clients.vault import CUSTOMERS, INTERACTIONS, Vault
from coterie.privacy.contract import Contract
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.randomness import OsSource, RandomSource

__all__ = ["ROW", "Exchange", "find_cells", "open_cells", "renew_keys", "seal_cells"]

ROW = "row"
"""Column with the rows' numbers, which is added where a table has no column of row keys."""

_AHEAD = 1 << 20  # rows that are counted at a time, before they are sealed


@dataclass(frozen=True)
class Exchange:
    """How a table is exchanged: what both who seals and who opens must say.

    Args:
        contract: Says which columns are ordinary, and which may have searchable cells.
        row_key: Column whose value is the row's own for life, and stays readable; None for numbers that are added.
    """

    contract: Contract
    row_key: str | None = None

    @property
    def dataset(self) -> str:
        """The data set that cells are bound to."""
        return CUSTOMERS if self.contract.interactions is None else INTERACTIONS

    @property
    def key(self) -> str:
        """The column with row keys."""
        return ROW if self.row_key is None else self.row_key

    def closed(self, table: Table) -> dict[str, str]:
        """Return the kind of cells of every column of a table that is sealed.

        Raises:
            ContractFault: The column of row keys would have to be sealed, or there is a column "row" already.
        """
        contract = self.contract
        kinds = {column.name: column.cells for column in contract.columns} | {
            contract.customer: contract.customer_cells
        }
        ordinary = {column.name for column in contract.columns if column.sensitivity == "ordinary"}
        if self.key in {*kinds, contract.label} - ordinary:
            rule = "cannot hold row keys, which stay readable: the contract has it sealed"
            fix = "name a column that tells nothing of a customer, or none: rows are then numbered"
            raise ContractFault(Fault(f"{table.place} column {self.key}", rule, fix))
        names = (name for name in table.schema.names if name not in ordinary and name != self.key)
        return {name: kinds.get(name, "randomised") for name in names}


def renew_keys(vault: Vault, table: Table, exchange: Exchange) -> None:
    """Make new keys for all columns of a table that are sealed; what older ones sealed can be opened still.

    Raises:
        As `seal_cells`.
    """
    fresh_keys(vault, exchange.dataset, _wanted(table, exchange))


def seal_cells(
    vault: Vault, table: Table, exchange: Exchange, output: Path, *, random: RandomSource, see: See = unseen
) -> int:
    """Seal a table cell by cell into a file, and return how many rows it has.

    Args:
        vault: The partner's, which keeps the keys.
        table: The table; memory does not grow with its rows, but for 8 bytes for each row and searchable column.
        exchange: How.
        output: CSV or Parquet file; never overwritten.
        random: Of nonces, and of what stands for missing values.
        see: Is told of progress.

    Raises:
        ContractFault: The table cannot be read; a row's key is missing or another row's too; a type has no cells; or a
            column that the contract has searchable has too few values, or too frequent ones.
        FileFault: The file exists or cannot be written, or the keys cannot.
        KeyFault: The key source does not answer, or a key has sealed as many cells as it may.
        SealFault: The file of keys was changed.
    """
    NewFile.check(output)
    keys = keys_for(vault, exchange.dataset, _wanted(table, exchange))
    rows, counted = Rows(table.place, exchange.row_key), 0
    schema = _with_types(table, dict.fromkeys((key.column for key in keys), pa.string()), exchange)
    with _columns(vault, exchange.dataset, keys, random) as columns, NewFile(output, schema) as out:
        for piece in table.pieces(table.schema.names):
            if rows.count + piece.num_rows > counted:
                count_cells(vault, exchange.dataset, keys, _AHEAD)
                counted += _AHEAD
            first, row_keys = rows.take(piece)
            sealed = {name: column.seal(piece[name], row_keys, first=first) for name, column in columns.items()}
            numbers = [] if exchange.row_key else [pa.array(range(first, rows.count + 1), pa.int64())]
            out.add(_with(piece, sealed, schema, numbers))
            see(rows.count)
        rows.check()
        for column in columns.values():
            column.check()
        count_cells(vault, exchange.dataset, keys, rows.count - counted)
    return rows.count


def open_cells(vault: Vault, table: Table, exchange: Exchange, output: Path, *, see: See = unseen) -> int:
    """Open a table of sealed cells into a file in plain, 0600, and return how many rows it has.

    Args:
        vault: The one that sealed it.
        table: The sealed table.
        exchange: As at sealing; numbers of rows that were added are left out again.
        output: CSV or Parquet file; never overwritten. In Parquet values have the types that they had.
        see: Is told of progress.

    Raises:
        ContractFault: The table cannot be read; a row's key is missing or another row's too; or a column's cells are of
            another kind than the contract says.
        SealFault: A cell is plaintext, or was edited or moved; the fault has the number of the row.
        KeyFault: The vault has no such key, or its key source does not answer.
        FileFault: The file exists or cannot be written.
    """
    NewFile.check(output)
    closed, ring = exchange.closed(table), read_ring(vault, exchange.dataset)
    names = [name for name in table.schema.names if exchange.row_key or name != ROW]
    pieces = table.pieces([exchange.key, *(name for name in names if name != exchange.key)])
    begun = next(pieces, None)
    keys = [key_of(ring, name, cells, begun=begun[name] if begun else None) for name, cells in closed.items()]
    rows, schema = Rows(table.place, exchange.key), _with_types(table, {k.column: kind_of(k.type) for k in keys}, None)
    schema = pa.schema([schema.field(name) for name in names])
    with _columns(vault, exchange.dataset, keys, OsSource()) as columns, NewFile(output, schema) as out:
        for piece in itertools.chain([begun] if begun else [], pieces):
            first, row_keys = rows.take(piece)
            opened = {name: column.open(piece[name], row_keys, first=first) for name, column in columns.items()}
            out.add(_with(piece.select(names), opened, schema, []))
            see(rows.count)
        rows.check()
    return rows.count


def find_cells(
    vault: Vault, table: Table, *, column: str, value: str, dataset: str = CUSTOMERS, row_key: str = ROW
) -> list[str]:
    """Return the keys of the rows of a sealed table whose searchable cell is that of a value; nothing is opened.

    Args:
        vault: The one that sealed it.
        table: The sealed table.
        column: The column; its cells are searchable.
        value: What is looked for, as it was written.
        dataset: The data set that its cells are bound to.
        row_key: The column with row keys.

    Raises:
        ContractFault: The table cannot be read, or the column's cells are randomised.
        SealFault: The column is not of cells.
        KeyFault: The vault has no such key, or its key source does not answer.
    """
    pieces = table.pieces([row_key, column])
    begun, ring = next(pieces, None), read_ring(vault, dataset)
    key = key_of(ring, column, "searchable", begun=begun[column] if begun else None)
    with _columns(vault, dataset, [key], OsSource()) as columns:
        cell = columns[column].cell_of(value)
    found: list[str] = []
    for piece in itertools.chain([begun] if begun else [], pieces):
        rows = pc.fill_null(pc.equal(pc.cast(piece[column], pa.string()), cell), fill_value=False)
        found += [text for text in texts_of(piece[row_key].filter(rows)) if text is not None]
    return found


def _wanted(table: Table, exchange: Exchange) -> dict[str, tuple[str, str]]:
    """Return the kind of cells and the type of values of every column that is sealed."""
    names, closed = table.schema.names, exchange.closed(table)
    if exchange.row_key is None and ROW in names:
        rule, fix = "is there, and rows are to be numbered in one of this name", f"name it: --row-key {ROW}"
        raise ContractFault(Fault(f"{table.place} column {ROW}", rule, fix))
    checked([*names, *([exchange.row_key] if exchange.row_key else [])], table.schema, table.place)
    return {name: (cells, name_of(table.schema.field(name), table.place)) for name, cells in closed.items()}


@contextlib.contextmanager
def _columns(
    vault: Vault, dataset: str, keys: Sequence[CellKey], random: RandomSource
) -> Iterator[dict[str, CellColumn]]:
    with lent(vault, read_ring(vault, dataset), keys) as secrets:
        columns = {
            key.column: CellColumn(dataset, key, secret, random=random)
            for key, secret in zip(keys, secrets, strict=True)
        }
    yield columns


def _with_types(table: Table, types: Mapping[str, pa.DataType], numbered: Exchange | None) -> pa.Schema:
    """Return a table's schema with other types for some columns, and the column of numbers where rows get some."""
    fields = [pa.field(field.name, types.get(field.name, field.type)) for field in table.schema]
    if numbered is not None and numbered.row_key is None:
        fields.append(pa.field(ROW, pa.int64()))
    return pa.schema(fields)


def _with(
    piece: pa.RecordBatch, other: Mapping[str, pa.Array], schema: pa.Schema, numbers: Sequence[pa.Array]
) -> pa.RecordBatch:
    """Return a piece with other values in some columns, and with its rows' numbers where it gets some."""
    columns = [other.get(name, piece[name]) for name in piece.schema.names]
    return pa.RecordBatch.from_arrays([*columns, *numbers], schema=schema)
