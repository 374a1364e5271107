"""Reading a table of consents: in pieces, checked whole, with every fault counted and none guessed at."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from coterie.clients.consenttimes import NEVER, Times, times_of, unfit
from coterie.clients.tables.table import Table
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["ConsentRows", "check_consents", "refuse", "rows_for", "unnamed"]

_COLUMNS = ("customer", "purpose", "given", "expires", "withdrawn")


@dataclass(frozen=True)
class ConsentRows:
    """Some rows of a table of consents; its `repr` shows nothing of them.

    Args:
        customers: Who consented, as large strings, shape (rows,).
        given: Since when.
        expires: Until when.
        withdrawn: Since when no more.
    """

    customers: pa.Array
    given: Times
    expires: Times
    withdrawn: Times

    def __repr__(self) -> str:
        """Return a text without any name or size."""
        return "ConsentRows(...)"


def rows_for(table: Table, purpose: str) -> list[ConsentRows]:
    """Return a table's rows for one purpose, by its exact name.

    Raises:
        ContractFault: A column is missing, there twice or of another type; a customer, purpose or `given` is missing, a
            time cannot be read, or `expires` or `withdrawn` lies before `given`: each with the count of its rows. Or
            the table itself cannot be read.
    """
    checks, found = _Checks(table), []
    for batch in checks.batches():
        chosen = batch.filter(pc.equal(batch["purpose"], purpose))
        if chosen.num_rows:
            found.append(checks.rows(chosen))
    checks.finish()
    return found


def check_consents(table: Table) -> Mapping[str, int]:
    """Check every row of a table, before it is sealed, and return how many there are for each purpose.

    Raises:
        ContractFault: As `rows_for`, for rows of all purposes; or a purpose has a star, which stands for nothing.
    """
    checks, purposes = _Checks(table), Counter[str]()
    for batch in checks.batches():
        checks.rows(batch)
        starred = pc.sum(pc.match_substring(batch["purpose"], "*")).as_py() or 0
        checks.count("purpose", "has a star", "name each purpose in full, in a row of its own", starred)
        found = pc.value_counts(batch["purpose"])
        purposes.update({str(pair["values"]): pair["counts"] for pair in found.to_pylist()})
    checks.finish()
    return dict(sorted(purposes.items()))


class _Checks:
    """What is wrong with one table, counted while it is read."""

    def __init__(self, table: Table) -> None:
        self._table, self._wrong = table, Counter[tuple[str, str, str]]()
        there = Counter(table.schema.names)
        fix = "give the columns " + ", ".join(_COLUMNS)
        faults = [
            Fault(f"{table.place} column {name}", "is there twice" if there[name] else "is missing", fix)
            for name in _COLUMNS
            if there[name] != 1
        ]
        refuse(faults)
        kinds = {name: table.schema.field(name).type for name in _COLUMNS}
        for name in ("customer", "purpose"):
            faults += unnamed(f"{table.place} column {name}", kinds[name])
        for name in ("given", "expires", "withdrawn"):
            faults += unfit(f"{table.place} column {name}", kinds[name])
        refuse(faults)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the table's pieces with names as texts; rows that lack one are counted and left out."""
        for piece in self._table.pieces(_COLUMNS):
            names = [pc.cast(piece.column(place), pa.large_string()) for place in (0, 1)]
            for name, column in zip(_COLUMNS, names, strict=False):
                self.count(name, "is missing", "fill it", column.null_count)
            batch = pa.RecordBatch.from_arrays([*names, *piece.columns[2:]], names=list(_COLUMNS))
            yield batch.filter(pc.and_(pc.is_valid(names[0]), pc.is_valid(names[1])))

    def rows(self, batch: pa.RecordBatch) -> ConsentRows:
        """Return rows with their times, checked."""
        given, expires, withdrawn = (self._times(batch, name) for name in ("given", "expires", "withdrawn"))
        known = given.first != NEVER
        fix = "correct it, or write a time with its zone where a day does not tell which was first"
        self.count("expires", "lies before given", fix, int((known & (expires.last < given.first)).sum()))
        self.count("withdrawn", "lies before given", fix, int((known & (withdrawn.last < given.first)).sum()))
        return ConsentRows(batch["customer"], given, expires, withdrawn)

    def count(self, column: str, rule: str, fix: str, rows: int) -> None:
        """Remember that so many rows break a rule."""
        if rows:
            self._wrong[(column, rule, fix)] += rows

    def finish(self) -> None:
        """Raise ContractFault with everything that was counted."""
        place = self._table.place
        refuse([Fault(f"{place} column {c}", f"{rule} in {n} rows", fix) for (c, rule, fix), n in self._wrong.items()])

    def _times(self, batch: pa.RecordBatch, name: str) -> Times:
        times, unreadable = times_of(batch[name])
        fix = "write 2031-05-04, or 2031-05-04T12:30:00Z with its zone"
        self.count(name, "is no ISO 8601 day or time with a zone", fix, unreadable)
        if name == "given":
            self.count(name, "is missing", "say since when", int((times.first == NEVER).sum()) - unreadable)
        return times


def unnamed(place: str, kind: pa.DataType) -> list[Fault]:
    """Return what keeps a column from naming anything in one spelling; numbers with a point have several."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return []
    return [Fault(place, "must hold texts or whole numbers", "correct its type")]


def refuse(faults: Sequence[Fault]) -> None:
    """Raise ContractFault where there is any fault."""
    if faults:
        raise ContractFault(*faults)
