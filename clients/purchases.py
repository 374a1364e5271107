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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.tables.days import days_of, is_time, shapes_of
from coterie.clients.tables.numbers import numbers_of
from coterie.clients.tables.table import Table, checked
from coterie.clients.taint import taint
from coterie.models.histories import Histories
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["Match", "Purchases", "Wanted", "read_purchases"]

Match = Callable[[pa.Array], NDArray[np.int64]]
"""From item codes to positions in the catalogue; -1 for unknown and missing ones."""

_EPOCH = datetime.date(1970, 1, 1)
_EARLY, _LATE = "rows before the first day", "rows after the last day"


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


def read_purchases(table: Table, wanted: Wanted, match: Match) -> Purchases:
    """Read a table of interactions.

    Args:
        table: Where they are.
        wanted: What of it, and on which terms.
        match: Finds items in the catalogue.

    Raises:
        ContractFault: The table is unreadable or breaks the terms; every fault is named.
    """
    _check_columns(table, wanted)
    found, rows = _Found(wanted, match), 0
    for batch in table.pieces(wanted.columns):
        found.add(batch)
        rows += batch.num_rows
    if not rows:
        raise ContractFault(Fault(table.place, "has no rows", "give a table with customers"))
    faults = [Fault(f"{table.place} {fault.place}", fault.rule, fault.fix) for fault in found.faults()]
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
        self._shapes: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        wanted, codes = self._wanted, batch.column(self._wanted.item)
        customer = pc.cast(batch.column(wanted.customer), pa.string())
        days, dated = days_of(batch.column(wanted.time))
        items = self._match(codes)
        named = codes.is_valid().to_numpy(zero_copy_only=False)
        self._wrong["customer"] += customer.null_count
        undated = named & ~dated
        self._wrong["time"] += int(undated.sum())
        if undated.any():
            self._shapes.update(shapes_of(batch.column(wanted.time).filter(pa.array(undated))))
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
            numbers = numbers_of(batch.column(wanted.value))
            self._wrong["value"] += numbers.broken
            self._wrong["commas"] += numbers.commas
            yield "rows without a value, or below the least", ~(numbers.values >= wanted.least_value)

    def faults(self) -> list[Fault]:
        """Return what is wrong, over all rows."""
        wanted, faults = self._wanted, []
        missing, undated = self._wrong["customer"], self._wrong["time"]
        if missing:
            rule = f"is missing in {missing} rows"
            faults.append(Fault(f"column {wanted.customer}", rule, "give every row its customer"))
        if undated:
            rule = f"is missing or no date in {undated} rows with an item"
            ways = ", ".join(f"{count} are written as {shape}" for shape, count in self._shapes.items())
            faults.append(Fault(f"column {wanted.time}", f"{rule}; {ways}" if ways else rule, "write 2025-12-31"))
        if self._wrong["value"]:
            rule = f"must hold numbers; {self._wrong['value']} rows hold something else"
            commas = f", {self._wrong['commas']} of them a comma" if self._wrong["commas"] else ""
            faults.append(Fault(f"column {wanted.value}", rule + commas, "write numbers as 1234.5"))
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


def _check_columns(table: Table, wanted: Wanted) -> None:
    faults = []
    for name, place in zip(wanted.columns, checked(wanted.columns, table.schema, table.place), strict=True):
        kind = table.schema.field(place).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text, whole = pa.types.is_string(kind) or pa.types.is_large_string(kind), pa.types.is_integer(kind)
        if name == wanted.time:
            holds, words = text or is_time(kind), "dates or times"
        elif name == wanted.value:
            holds, words = text or whole or pa.types.is_floating(kind), "numbers"
        else:
            holds, words = text or whole, "texts or whole numbers"
        if not holds:
            faults.append(Fault(f"{table.place} column {name}", f"must hold {words}", "correct its type"))
    if faults:
        raise ContractFault(*faults)
