"""What every table can do, wherever it lies: say its columns, and yield its rows in pieces, again and again."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from coterie.privacy.errors import ContractFault, Fault

__all__ = ["PIECE", "Table", "checked", "whole"]

PIECE = 1 << 16
"""Rows of a piece at most: what bounds memory, whatever the table's size."""

_LONGEST = 100  # characters of a name, as in a contract
_SHOWN = 40


class Table(Protocol):
    """Rows in columns; all of its errors are `ContractFault`, with names and counts and never a cell."""

    @property
    def place(self) -> str:
        """Where it lies, in words for an error: a path or a table's name, never a password."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, as the pieces will have them."""

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, `PIECE` of them at most at a time.

        Args:
            names: Columns of each piece, in this order; each is in the schema once.

        Raises:
            ContractFault: The table cannot be read, or is not what its schema says.
        """


def whole(table: Table, names: Sequence[str]) -> pa.Table:
    """Return these columns of a table in memory."""
    batches = list(table.pieces(names))
    schema = batches[0].schema if batches else pa.schema([table.schema.field(name) for name in names])
    return pa.Table.from_batches(batches, schema)


def checked(names: Sequence[str], schema: pa.Schema, place: str) -> list[int]:
    """Return where the columns stand in a schema that may hold others twice.

    Args:
        names: Columns that are asked for.
        schema: Of the table.
        place: Of the table, for an error.

    Raises:
        ContractFault: A column is missing or is there twice, or its name holds control characters or is longer than
            100 characters.
    """
    there, faults = schema.names, []
    for name in names:
        found = there.count(name)
        # Such a name may be the rest of a row, or of a file: only its beginning is shown.
        beginning = f"{''.join(itertools.takewhile(str.isprintable, name[:_SHOWN]))}..."
        if len(name) > _LONGEST:
            where, rule, fix = beginning, f"has a name of more than {_LONGEST} characters", "rename it"
        elif not name.isprintable():
            where, rule, fix = beginning, "has control characters in its name", "rename it"
        elif not found:
            where, rule, fix = name, "is missing", "add it, or ask for a plan without it"
        elif found > 1:
            where, rule, fix = name, "is there twice", "keep one of them"
        else:
            continue
        faults.append(Fault(f"{place} column {where}", rule, fix))
    if faults:
        raise ContractFault(*faults)
    return [there.index(name) for name in names]
