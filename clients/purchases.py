"""A partner's own interactions, read for recommending: which customer met which item, on which day.

Rules this module enforces:
- a table is read in pieces of fixed size; what stays of it is two whole numbers a row and each customer's name once;
- every broken rule is reported at once, by column, rule and count, never by value;
- what is left out (unknown items, low values, early or late days) is counted for the partner's own eyes;
- a customer all of whose rows were left out stays, without a history, so that nobody is lost.
"""

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.clients.taint import taint
from coterie.models.histories import Histories
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["Match", "Purchases", "Wanted", "read_purchases"]

Match = Callable[[pa.Array], NDArray[np.int64]]
"""From item codes to positions in the catalogue; -1 for unknown and missing ones."""

_ROWS, _BYTES = 1 << 19, 1 << 24  # read at a time, of Parquet and of CSV
_EPOCH = datetime.date(1970, 1, 1)
_EARLY, _LATE = "rows before the first day", "rows after the last day"
_ISO_DATE = 10  # characters


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is read of a table, and on which terms.

    Args:
        customer: Column with the customer's identifier: texts or whole numbers.
        item: Column with the item's code: texts or whole numbers; a row without one only names its customer.
        time: Column with the day: a date, a time, or a text that begins with an ISO date.
        value: Column with a number that `least_value` is about, e.g. a rating; None where every row counts.
        least_value: Rows below this are left out and counted.
        earliest: First day; None for no bound.
        early: Rows before it are an "error", or are "drop"ped and counted.
        today: Last day; later rows are from the future.
        future: Rows after it are an "error", or are "drop"ped and counted.
    """

    customer: str
    item: str
    time: str
    value: str | None = None
    least_value: float | None = None
    earliest: datetime.date | None = None
    early: str = "drop"
    today: datetime.date
    future: str = "error"

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are read."""
        return [self.customer, self.item, self.time, *([self.value] if self.value else [])]


@dataclass(frozen=True)
class Purchases:
    """All interactions of a partner, by customer and oldest first; its `repr` shows nothing of them.

    Args:
        customers: Identifiers as texts, in order of their first row.
        starts: Where each customer's rows begin and the last one's end, shape (customers + 1,).
        items: Positions in the catalogue, shape (rows,).
        days: Days since 1970-01-01, shape (rows,).
        notes: Local counts of what was left out.
    """

    customers: pa.Array
    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    days: NDArray[np.int32]
    notes: Mapping[str, int]

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.starts) - 1

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Purchases(...)"

    def histories(self, chosen: NDArray[np.int64], *, longest: int) -> tuple[Histories, int]:
        """Return the histories of some customers, and how many of them had more items than are kept.

        Args:
            chosen: Positions of customers, shape (chosen,).
            longest: Greatest number of items of one customer; the most recent ones are kept. An item counts once, from
                its first day on, as it does in training.
        """
        lengths = np.diff(self.starts)[chosen]
        begins = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.starts[chosen] - begins[:-1], lengths) + np.arange(begins[-1])
        who, items = np.repeat(np.arange(len(chosen)), lengths), self.items[rows].astype(np.int64)
        keep = np.sort(np.unique((who << 32) | items, return_index=True)[1])
        counts = np.bincount(who[keep], minlength=len(chosen))
        recent = keep[np.arange(len(keep)) >= np.repeat(np.cumsum(counts) - longest, counts)]
        starts = np.concatenate([[0], np.cumsum(np.minimum(counts, longest))]).astype(np.int64)
        return Histories(starts, items[recent], self.days[rows[recent]].astype(np.int64)), int((counts > longest).sum())


def read_purchases(path: Path, wanted: Wanted, match: Match) -> Purchases:
    """Read a Parquet or CSV file of interactions.

    In a CSV file, identifiers and codes stay as they are written ("007" is not 7), and an empty one is missing.

    Args:
        path: Parquet, or CSV with a header.
        wanted: What of it, and on which terms.
        match: Finds items in the catalogue.

    Raises:
        ContractFault: The table is unreadable or breaks the terms; every fault is named.
    """
    found, rows = _Found(wanted, match), 0
    for batch in _batches(path, wanted):
        found.add(batch)
        rows += batch.num_rows
    if not rows:
        raise ContractFault(Fault(str(path), "has no rows", "give a table with customers"))
    faults = [Fault(f"{path} {fault.place}", fault.rule, fault.fix) for fault in found.faults()]
    if faults:
        raise ContractFault(*faults)
    return found.sorted()


class _Found:
    """What is kept of the rows read so far."""

    def __init__(self, wanted: Wanted, match: Match) -> None:
        self._wanted, self._match = wanted, match
        self._who: list[pa.DictionaryArray] = []
        self._items: list[NDArray[np.int32]] = []
        self._days: list[NDArray[np.int32]] = []
        self._wrong: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        wanted, codes = self._wanted, batch.column(self._wanted.item)
        customer = pc.cast(batch.column(wanted.customer), pa.string())
        days, dated = _days(batch.column(wanted.time))
        items = self._match(codes)
        named = codes.is_valid().to_numpy(zero_copy_only=False)
        self._wrong["customer"] += customer.null_count
        self._wrong["time"] += int((named & ~dated).sum())
        self._notes["rows without an item"] += int((~named).sum())
        keep = named & dated
        for what, left_out in self._left_out(batch, items, days):
            self._notes[what] += int((keep & left_out).sum())
            keep &= ~left_out
        # A customer all of whose rows are left out stays in the dictionary.
        self._who.append(pc.fill_null(customer, "").dictionary_encode().filter(pa.array(keep)))
        self._items.append(items[keep].astype(np.int32))
        self._days.append(days[keep])

    def _left_out(
        self, batch: pa.RecordBatch, items: NDArray[np.int64], days: NDArray[np.int32]
    ) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        wanted = self._wanted
        yield _LATE, days > _day(wanted.today)
        if wanted.earliest is not None:
            yield _EARLY, days < _day(wanted.earliest)
        yield "rows of items that the catalogue does not know", items < 0
        if wanted.value is not None and wanted.least_value is not None:
            values = pc.cast(batch.column(wanted.value), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            yield "rows without a value, or below the least", ~(values >= wanted.least_value)

    def faults(self) -> list[Fault]:
        """Return what is wrong, over all rows."""
        wanted, faults = self._wanted, []
        missing, undated = self._wrong["customer"], self._wrong["time"]
        if missing:
            rule = f"is missing in {missing} rows"
            faults.append(Fault(f"column {wanted.customer}", rule, "give every row its customer"))
        if undated:
            rule = f"is missing or no date in {undated} rows with an item"
            faults.append(Fault(f"column {wanted.time}", rule, "write dates as 2025-01-31"))
        for what, terms, words in ((_LATE, wanted.future, "after"), (_EARLY, wanted.early, "before")):
            if terms == "error" and self._notes[what]:
                last = wanted.today if words == "after" else wanted.earliest
                rule = f"lies {words} {last} in {self._notes[what]} rows"
                faults.append(Fault(f"column {wanted.time}", rule, 'correct them, or plan with outside = "drop"'))
        return faults

    def sorted(self) -> Purchases:
        """Return everything by customer and oldest first; rows of one day stay in the table's order."""
        chunks = pa.chunked_array(self._who).unify_dictionaries().chunks
        who = np.concatenate([chunk.indices.to_numpy() for chunk in chunks]).astype(np.int64)
        items, days = np.concatenate(self._items), np.concatenate(self._days)
        self._who, self._items, self._days = [], [], []
        order = np.argsort((who << 32) + days, kind="stable")
        names = chunks[0].dictionary
        starts = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=len(names)))]).astype(np.int64)
        purchases = Purchases(names, starts, items[order], days[order], {k: n for k, n in self._notes.items() if n})
        for array in (purchases.starts, purchases.items, purchases.days):
            taint(array)
        return purchases


def _day(date: datetime.date) -> int:
    return (date - _EPOCH).days


def _days(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return days since 1970-01-01, and where there is one."""
    if not _is_time(column.type):
        dates = pc.utf8_slice_codeunits(pc.cast(column, pa.string()), 0, _ISO_DATE)
        column = pc.strptime(dates, format="%Y-%m-%d", unit="s", error_is_null=True)
    days = pc.cast(pc.cast(column, pa.date32(), safe=False), pa.int32())
    return pc.fill_null(days, 0).to_numpy(), days.is_valid().to_numpy(zero_copy_only=False)


def _batches(path: Path, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    try:
        yield from (_from_csv if path.suffix == ".csv" else _from_parquet)(path, wanted)
    except (OSError, ValueError, pa.ArrowException):
        # The library's own text may hold a cell; it is not passed on.
        raise ContractFault(
            Fault(str(path), "cannot be read as a table", "give a Parquet or CSV file with a header")
        ) from None


def _from_parquet(path: Path, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow, wanted)
        yield from file.iter_batches(batch_size=_ROWS, columns=wanted.columns)


def _from_csv(path: Path, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    texts = {name: pa.string() for name in (wanted.customer, wanted.item, wanted.time)}
    with pyarrow.csv.open_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=texts)) as head:
        _check_columns(path, head.schema, wanted)
    # Other columns may hold what the first rows do not show; they are not looked at.
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: texts.get(name, pa.float64()) for name in wanted.columns},
        include_columns=wanted.columns,
        strings_can_be_null=True,
        null_values=[""],
    )
    read = pyarrow.csv.ReadOptions(block_size=_BYTES)
    with pyarrow.csv.open_csv(path, read_options=read, convert_options=convert) as stream:
        yield from stream


def _check_columns(path: Path, schema: pa.Schema, wanted: Wanted) -> None:
    names, fix = schema.names, "add it, or ask for a plan without it"
    faults = [Fault(f"{path} column {name}", "is missing", fix) for name in wanted.columns if name not in names]
    twice = [name for name in wanted.columns if names.count(name) > 1]
    faults += [Fault(f"{path} column {name}", "is there twice", "keep one of them") for name in twice]
    for name in wanted.columns if not faults else ():
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text, whole = pa.types.is_string(kind) or pa.types.is_large_string(kind), pa.types.is_integer(kind)
        if name == wanted.time:
            holds, words = text or _is_time(kind), "dates or times"
        elif name == wanted.value:
            holds, words = whole or pa.types.is_floating(kind), "numbers"
        else:
            holds, words = text or whole, "texts or whole numbers"
        if not holds:
            faults.append(Fault(f"{path} column {name}", f"must hold {words}", "correct its type"))
    if faults:
        raise ContractFault(*faults)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))
