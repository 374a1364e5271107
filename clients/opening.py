"""Opening a table for a study: checked whole against the data contract, and handed on as marked arrays.

Rules this module enforces:
- a table is opened for one call, and only the columns that the contract names are read;
- every broken rule is reported at once, by column, rule and count, never by value;
- what the contract lets pass, and who is left out, is counted for the partner's own eyes;
- a customer is in the held-out group by a keyed hash of its identifier that is fixed for life;
- where the policy divides customers into segments, a customer is in one of them for life, by another keyed hash or
  by a public column that never changes for a customer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.consents import Consented
from coterie.clients.findings import Findings, wanted_columns
from coterie.clients.groups import is_held_out, segment_rows
from coterie.clients.tables.table import Table, whole
from coterie.clients.taint import taint
from coterie.clients.who import EVERYBODY, Who
from coterie.privacy.contract import Contract
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.randomness import Stream

__all__ = ["Opened", "check_columns", "open_table"]


@dataclass(frozen=True)
class Opened:
    """A partner's rows in memory; dies with the call that opened it.

    Args:
        columns: Feature columns, shape (rows,) each: numbers (NaN where missing), or vocabulary indices
            (-1 where there is none).
        labels: 0 or 1, shape (rows,); empty when a table is opened for scoring.
        customer: Whole numbers that are equal for rows of one customer, shape (rows,).
        held_out: Whether the row's customer is held out, shape (rows,).
        notes: Local counts of what the contract let pass.
    """

    columns: Mapping[str, NDArray[np.float64]]
    labels: NDArray[np.float32]
    customer: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    notes: Mapping[str, int]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many rows and customers are here, with the notes: for the partner's sealed records alone."""
        return {
            "rows": len(self.customer),
            "customers": int(np.count_nonzero(np.bincount(self.customer))),
            **self.notes,
        }

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Opened(...)"


def open_table(
    table: Table,
    contract: Contract,
    *,
    group_key: bytes,
    stream: Stream,
    needs_label: bool = True,
    who: Who = EVERYBODY,
) -> Opened:
    """Open a table and check it.

    Args:
        table: The customers.
        contract: What it must keep.
        group_key: 32 bytes that decide who is held out.
        stream: Randomness for sampling the rows of customers that have too many.
        needs_label: False when the table is opened for scoring, where nothing has happened yet.
        who: Whose rows are opened; the others' are not looked at.

    Raises:
        ContractFault: The table breaks the contract; every fault is named.
    """
    names = wanted_columns(contract, needs_label=needs_label)
    check_columns(table, names)
    by = _divider(table, who, names)
    rows = whole(table, [*names, *by])
    if rows.num_rows == 0:
        raise ContractFault(Fault(table.place, "has no rows", "give a table with customers"))
    if who.among is not None:
        rows = segment_rows(rows, contract.customer, who.among, group_key)
    findings = Findings(contract)
    rows, left_out = _of_consented(rows, contract, who.consented)
    customer, held_out = _customers(findings.customers(rows[contract.customer]), group_key)
    asked = contract.columns if needs_label else contract.features
    columns = {column.name: findings.feature(column, rows[column.name]) for column in asked}
    labels = findings.labels(rows[contract.label]) if needs_label else np.empty(0, dtype=np.float32)
    if needs_label:
        findings.crowded(np.bincount(customer))
    faults = findings.faults(table.place)
    if faults:
        raise ContractFault(*faults)
    if needs_label:
        keep = _rows_to_keep(customer, contract.rows_per_customer, stream)
        columns = {name: values[keep] for name, values in columns.items()}
        labels, customer, held_out = labels[keep], customer[keep], held_out[keep]
    for values in columns.values():
        taint(values)
    for array in (labels, customer, held_out):
        taint(array)
    return Opened(columns, labels, customer, held_out, {**left_out, **findings.notes})


def check_columns(table: Table, wanted: list[str]) -> None:
    """Check that a table has some columns, each once.

    Raises:
        ContractFault: It does not; every fault is named.
    """
    there = Counter(table.schema.names)
    missing = [name for name in wanted if not there[name]]
    if missing:
        fix = "add it, or ask for a plan without it"
        raise ContractFault(*(Fault(f"{table.place} column {name}", "is missing", fix) for name in missing))
    twice = [name for name in wanted if there[name] > 1]
    if twice:
        raise ContractFault(*(Fault(f"{table.place} column {name}", "is there twice", _ONE) for name in twice))


_ONE = "keep one of them"


def _divider(table: Table, who: Who, names: list[str]) -> list[str]:
    """Return the column that divides customers, where it is there and not read anyway."""
    by = who.among.division.by if who.among is not None else "hash"
    return [] if by == "hash" or by in names or table.schema.names.count(by) != 1 else [by]


def _of_consented(
    rows: pa.Table, contract: Contract, consented: Consented | None
) -> tuple[pa.Table, Mapping[str, int]]:
    """Leave out the rows of customers that did not consent, and count them by reason."""
    if consented is None:
        return rows, {}
    keep, left_out = consented.keep(pc.cast(rows[contract.customer], pa.string()).combine_chunks())
    return rows.filter(pa.array(keep)), left_out


def _customers(column: pa.Array | pa.ChunkedArray, group_key: bytes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each row's customer as a number, and whether it is held out."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = column.drop_null().dictionary_encode()  # a row without its customer is a fault, and is told as one
    names = encoded.dictionary.to_pylist()
    drawn = np.array([is_held_out(group_key, identifier) for identifier in names], dtype=np.bool_)
    codes = encoded.indices.to_numpy().astype(np.int64)
    return codes, drawn[codes]


def _rows_to_keep(customer: NDArray[np.int64], most: int, stream: Stream) -> NDArray[np.int64]:
    """Choose rows so that no customer has more than the contract allows: a random few of those that do."""
    counts = np.bincount(customer)
    if not (counts > most).any():
        return np.arange(len(customer))
    shuffled = np.argsort(stream.uniforms(len(customer)), kind="stable")
    shuffled = shuffled[np.argsort(customer[shuffled], kind="stable")]  # by customer, in random order
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    place_in_customer = np.arange(len(customer)) - np.repeat(starts, counts)
    return np.sort(shuffled[place_in_customer < most])
