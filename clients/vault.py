"""The vault: the only room that opens customers' rows, and the check of the data contract.

Rules this module enforces:
- a table is opened for one call, checked whole against the contract, and handed on as marked arrays;
- every broken rule is reported at once, by column, rule and count, never by value;
- what the contract lets pass (clipped, unknown, missing, too many rows) is counted for the partner's own eyes;
- a customer is in the held-out group by a keyed hash of its identifier that is fixed for life;
- where the policy divides customers into segments, a customer is in one of them for life, by another keyed hash or
  by a public column that never changes for a customer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.clients.groups import Among, is_held_out, segment_rows
from coterie.clients.taint import taint
from coterie.privacy.contract import Column, Contract
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.randomness import Stream

__all__ = ["Opened", "open_table", "read_table"]


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

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Opened(...)"


def read_table(path: Path, contract: Contract) -> pa.Table:
    """Read a Parquet or CSV file.

    In a CSV file, identifiers and words stay as they are written ("007" is not 7), and an empty one is missing.

    Raises:
        ContractFault: The file is missing or unreadable.
    """
    try:
        table = _read_csv(path, contract) if path.suffix == ".csv" else _read_parquet(path)
        table.column_names  # noqa: B018 - names that are not text are an error here, not later
    except (OSError, ValueError, pa.ArrowException):
        # The library's own text may hold a cell; it is not passed on.
        raise ContractFault(
            Fault(str(path), "cannot be read as a table", "give a Parquet or CSV file with a header")
        ) from None
    return table


def _read_parquet(path: Path) -> pa.Table:
    # One file: `read_table` would also take folders, and columns out of the names of folders.
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read()


def _read_csv(path: Path, contract: Contract) -> pa.Table:
    texts = {contract.customer, *(column.name for column in contract.columns if column.kind == "categorical")}
    # A day is the one that is written: read as a time, one with a zone would become the day in UTC.
    texts |= {contract.interactions.item, contract.interactions.time} if contract.interactions else set()
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
    table = pyarrow.csv.read_csv(path, convert_options=options)
    for index, name in enumerate(table.column_names):
        if name in texts:
            column = table.column(index)
            table = table.set_column(index, name, pc.if_else(pc.equal(column, ""), None, column))
    return table


def open_table(
    path: Path,
    contract: Contract,
    *,
    group_key: bytes,
    stream: Stream,
    needs_label: bool = True,
    among: Among | None = None,
) -> Opened:
    """Open a table and check it.

    Args:
        path: Parquet or CSV.
        contract: What it must keep.
        group_key: 32 bytes that decide who is held out.
        stream: Randomness for sampling the rows of customers that have too many.
        needs_label: False when the table is opened for scoring, where nothing has happened yet.
        among: Whose rows are opened; None for everybody's.

    Raises:
        ContractFault: The table breaks the contract; every fault is named.
    """
    table = read_table(path, contract)
    _check_columns(table, contract, path, needs_label=needs_label)
    faults: list[Fault] = []
    if among is not None:
        table = segment_rows(table, contract.customer, among, group_key)
    notes: Counter[str] = Counter()
    customer, held_out = _customers(table, contract, group_key, faults)
    columns = {column.name: _column(table[column.name], column, faults, notes) for column in contract.columns}
    labels = _labels(table, contract, faults) if needs_label else np.empty(0, dtype=np.float32)
    keep = _rows_to_keep(customer, contract, stream, faults, notes) if needs_label else None
    if faults:
        raise ContractFault(*(Fault(f"{path} {fault.place}", fault.rule, fault.fix) for fault in faults))
    if keep is not None:
        columns = {name: values[keep] for name, values in columns.items()}
        labels, customer, held_out = labels[keep], customer[keep], held_out[keep]
    for values in columns.values():
        taint(values)
    for array in (labels, customer, held_out):
        taint(array)
    return Opened(columns, labels, customer, held_out, dict(notes))


def _check_columns(table: pa.Table, contract: Contract, path: Path, *, needs_label: bool) -> None:
    wanted = [contract.customer, *(column.name for column in contract.columns)]
    wanted += [contract.label] if needs_label else []
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        fix = "add it, or ask for a plan without it"
        raise ContractFault(*(Fault(f"{path} column {name}", "is missing", fix) for name in missing))
    twice = [name for name in wanted if table.column_names.count(name) > 1]
    if twice:
        raise ContractFault(*(Fault(f"{path} column {name}", "is there twice", "keep one of them") for name in twice))
    if table.num_rows == 0:
        raise ContractFault(Fault(str(path), "has no rows", "give a table with customers"))


def _customers(
    table: pa.Table, contract: Contract, group_key: bytes, faults: list[Fault]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    place = f"column {contract.customer}"
    nobody = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    kind = table[contract.customer].type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        # One spelling for one customer, for life: the group hash is made of it.
        faults.append(Fault(place, "must hold texts or whole numbers", "correct its type"))
        return nobody
    column = pc.cast(table[contract.customer], pa.string()).combine_chunks()
    if column.null_count:
        faults.append(Fault(place, f"is missing in {column.null_count} rows", "give every row its customer"))
        return nobody
    encoded = column.dictionary_encode()
    drawn = np.array(
        [is_held_out(group_key, identifier) for identifier in encoded.dictionary.to_pylist()], dtype=np.bool_
    )
    codes = encoded.indices.to_numpy().astype(np.int64)
    return codes, drawn[codes]


def _column(values: pa.ChunkedArray, column: Column, faults: list[Fault], notes: Counter[str]) -> NDArray[np.float64]:
    if column.kind == "categorical":
        _missing(values.null_count, column, faults, notes)
        return _words(values, column, faults, notes)
    if not _numeric(values.type):
        faults.append(Fault(f"column {column.name}", "must hold numbers", "correct its type"))
        return np.empty(0)
    # Not "safe": whole numbers that no float holds lie outside every contract, and the refusal would say them.
    numbers = pc.cast(values, pa.float64(), safe=False).to_numpy()
    _missing(int(np.isnan(numbers).sum()), column, faults, notes)
    return _bounded(numbers, column, faults, notes)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _missing(count: int, column: Column, faults: list[Fault], notes: Counter[str]) -> None:
    if count and column.missing == "error":
        rule = f"is missing in {count} rows"
        faults.append(Fault(f"column {column.name}", rule, 'fill it, or plan with missing = "centre"'))
    if count:
        notes[f"{column.name}: missing"] += count


def _words(values: pa.ChunkedArray, column: Column, faults: list[Fault], notes: Counter[str]) -> NDArray[np.float64]:
    place = f"column {column.name}"
    try:
        words = pc.cast(values, pa.string())
    except pa.ArrowException:
        faults.append(Fault(place, "must hold texts", "correct its type"))
        return np.empty(0)
    codes = pc.index_in(words, value_set=pa.array(column.values, pa.string()))
    unknown = codes.null_count - values.null_count
    if unknown and column.outside == "error":
        rule = f"holds {unknown} values outside the contract's vocabulary of {len(column.values)}"
        faults.append(Fault(place, rule, 'correct them, or plan with outside = "clip"'))
    if unknown:
        notes[f"{column.name}: outside the vocabulary"] += unknown
    return np.asarray(pc.fill_null(codes, -1).to_numpy(), dtype=np.float64)


def _bounded(
    numbers: NDArray[np.float64], column: Column, faults: list[Fault], notes: Counter[str]
) -> NDArray[np.float64]:
    place = f"column {column.name}"
    low, high = float(column.low or 0.0), float(column.high or 0.0)
    infinite = int(np.isinf(numbers).sum())
    beyond = int(((numbers < low) | (numbers > high)).sum())
    if infinite:
        faults.append(Fault(place, f"is infinite in {infinite} rows", "correct them"))
    elif beyond and column.outside == "error":
        rule = f"lies outside {low:g} to {high:g} in {beyond} rows"
        faults.append(Fault(place, rule, 'correct them, or plan with outside = "clip"'))
    if beyond:
        notes[f"{column.name}: clipped"] += beyond
    return np.clip(numbers, low, high)


def _labels(table: pa.Table, contract: Contract, faults: list[Fault]) -> NDArray[np.float32]:
    place, values = f"column {contract.label}", table[contract.label]
    rule, fix = "must hold 0 or 1 in every row", "correct it"
    if not _numeric(values.type):
        faults.append(Fault(place, rule, fix))
        return np.empty(0, dtype=np.float32)
    labels = pc.cast(values, pa.float64(), safe=False).to_numpy()
    wrong = int((~np.isin(labels, (0, 1))).sum())
    if wrong:
        faults.append(Fault(place, f"{rule}; {wrong} hold something else", fix))
        return np.empty(0, dtype=np.float32)
    if labels.min() == labels.max():
        faults.append(Fault(place, "has one class only", "give customers of both classes"))
    return np.asarray(labels, dtype=np.float32)


def _rows_to_keep(
    customer: NDArray[np.int64], contract: Contract, stream: Stream, faults: list[Fault], notes: Counter[str]
) -> NDArray[np.int64]:
    """Choose rows so that no customer has more than the contract allows: a random few of those that do."""
    most = contract.rows_per_customer
    counts = np.bincount(customer)
    crowded = int((counts > most).sum())
    if not crowded:
        return np.arange(len(customer))
    if contract.too_many_rows == "error":
        rule = f"names {crowded} customers in more than {most} rows each"
        fix = 'give each customer at most that many, or plan with too_many_rows = "sample"'
        faults.append(Fault(f"column {contract.customer}", rule, fix))
    notes["customers with too many rows"] += crowded
    shuffled = np.argsort(stream.uniforms(len(customer)), kind="stable")
    shuffled = shuffled[np.argsort(customer[shuffled], kind="stable")]  # by customer, in random order
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    place_in_customer = np.arange(len(customer)) - np.repeat(starts, counts)
    return np.sort(shuffled[place_in_customer < most])
