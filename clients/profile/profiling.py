"""Making the profile of a table: read once in pieces, and again where customers have several rows.

Guarantees:
    The table is read and never written; no value of it is in what is returned, and nothing leaves. Memory does not grow
    with rows, but for hashes of customers (`people.py`).
"""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.findings import Findings
from coterie.clients.profile.columns import ColumnTally, roles
from coterie.clients.profile.dates import DayTally
from coterie.clients.profile.drift import drifts
from coterie.clients.profile.facts import LabelFacts, Profile
from coterie.clients.profile.hashing import hashes_of, is_number, joined, texts_of
from coterie.clients.profile.judging import fine, looks
from coterie.clients.profile.naming import suggested
from coterie.clients.profile.people import Census, Groups
from coterie.clients.tables.numbers import numbers_of
from coterie.clients.tables.table import Table
from coterie.privacy.contract import Contract
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["Wish", "profile_table"]

_LONGEST = 100  # characters of a name that can be asked for
_HELD = 1 << 24  # hashes of rows that are held at a time


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a profile is made.

    Args:
        today: The day, for the page.
        key: 32 fresh random bytes for hashes, which are never kept.
        quasi: Columns that together may tell customers apart; by their names where there are none.
        earlier: An earlier profile to compare with, as `drift.read_profile` returns it.
    """

    today: datetime.date
    key: bytes
    quasi: tuple[str, ...] = ()
    earlier: Mapping[str, Any] | None = None


def profile_table(table: Table, contract: Contract, wish: Wish) -> Profile:
    """Return the profile of a table.

    Args:
        table: The rows, wherever they lie.
        contract: That a study would hold them against.
        wish: How the profile is made.

    Raises:
        ContractFault: The table cannot be read, has no rows, changed while it was read, or lacks a column of the wish.
    """
    names = _readable(table)
    missing = [name for name in wish.quasi if name not in names]
    if missing:
        fix = "give names of columns as the table writes them, each there once"
        raise ContractFault(*(Fault(f"--quasi {name}", "is no column of the table", fix) for name in missing))
    made = _Making(table.schema, names, contract, wish)
    for piece in table.pieces(names):
        made.add(piece)
    if not made.rows:
        raise ContractFault(Fault(table.place, "has no rows", "give a table with customers"))
    doubled = _doubled(table, names, made, wish.key)
    profile = made.profile(len(table.schema.names) - len(names), doubled)
    if wish.earlier is not None:
        profile = dataclasses.replace(profile, drift=drifts(profile.columns, profile.rows, wish.earlier))
    profile = dataclasses.replace(profile, looks=tuple(looks(profile, contract)))
    return dataclasses.replace(profile, fine=tuple(fine(profile, contract)))


def _readable(table: Table) -> list[str]:
    """Return the columns that can be asked for; the others are counted."""
    there = Counter(table.schema.names)
    return [
        name for name in table.schema.names if there[name] == 1 and len(name) <= _LONGEST and str(name).isprintable()
    ]


def _doubled(table: Table, names: Sequence[str], made: "_Making", key: bytes) -> int:
    """Count rows that are equal to an earlier one: only rows of customers with several can be."""
    if made.who is None or not len(made.who.several()):
        return 0
    several, times = made.who.several(), made.who.times
    candidates = int(times[times > 1].sum())
    parts, different = -(-candidates // _HELD), 0  # in parts by their hashes, so that memory is bounded
    for part in range(parts):
        rows = Census()
        for piece in table.pieces(names):
            who = piece.column(made.customer)
            of_several = np.isin(hashes_of(who, key), several) & who.is_valid().to_numpy(zero_copy_only=False)
            chosen = piece.filter(pa.array(of_several))
            hashes = joined([hashes_of(chosen.column(name), key) for name in names])
            rows.add(hashes[hashes % np.uint64(parts) == part])
        different += len(rows.seen)
    return candidates - different


class _Making:
    """A profile that is being made."""

    def __init__(self, schema: pa.Schema, names: Sequence[str], contract: Contract, wish: Wish) -> None:
        self._contract, self._wish = contract, wish
        self._all, self.rows, self.customer = list(schema.names), 0, contract.customer
        self._columns = [
            ColumnTally(role, schema.field(role.place - 1).type, wish.key)
            for role in roles(self._all, contract)
            if role.name in names
        ]
        self._names = set(names) - {""}  # a column without a name is no label of a contract that has none
        self._findings = Findings(contract)
        self.who = Census() if contract.customer in self._names else None
        rows = contract.interactions
        self._days = DayTally(rows) if rows is not None and {rows.item, rows.time} <= self._names else None
        self._ones = self._zeros = self._other = 0
        own = {contract.customer, contract.label}
        quasi = wish.quasi or tuple(suggested(name for name in names if name not in own))
        chosen = "given" if wish.quasi else "suggested"
        self._groups = Groups(quasi, chosen) if quasi and self.who is not None else None

    def add(self, piece: pa.RecordBatch) -> None:
        """Take in some rows."""
        self.rows += len(piece)
        for tally in self._columns:
            tally.add(piece.column(tally.role.name))
        if self._days is not None and self._contract.interactions is not None:
            rows = self._contract.interactions
            self._days.add(piece.column(rows.item), piece.column(rows.time))
        ones = self._labels(piece)
        self._check(piece)
        if self.who is not None:
            self._people(self.who, piece, ones)

    def _labels(self, piece: pa.RecordBatch) -> NDArray[np.bool_] | None:
        if self._contract.label not in self._names:
            return None
        labels = numbers_of(piece.column(self._contract.label)).values
        self._ones += int((labels == 1).sum())
        self._zeros += int((labels == 0).sum())
        self._other += int((~np.isin(labels, (0, 1))).sum())
        return np.asarray(labels == 1)

    def _check(self, piece: pa.RecordBatch) -> None:
        """Hold a piece against the contract, with the same code that does so where a table is sealed and opened."""
        contract, findings = self._contract, self._findings
        if contract.customer in self._names:
            findings.customers(piece.column(contract.customer))
        for column in contract.columns:
            if column.name in self._names:
                findings.feature(column, piece.column(column.name))
        if contract.label in self._names:
            findings.labels(piece.column(contract.label))

    def _people(self, who: Census, piece: pa.RecordBatch, ones: NDArray[np.bool_] | None) -> None:
        named = piece.column(self._contract.customer)
        if not is_number(named.type) and texts_of(named) is None:
            return
        there = named.is_valid().to_numpy(zero_copy_only=False)
        hashes = hashes_of(named, self._wish.key)[there]
        who.add(hashes)
        if self._groups is not None:
            values = joined([hashes_of(piece.column(name), self._wish.key) for name in self._groups.columns])
            self._groups.add(hashes, values[there], None if ones is None else ones[there])

    def profile(self, left_out: int, doubled: int) -> Profile:
        """Return what was found, without what deserves a look."""
        contract = self._contract
        limited = contract.rows_per_customer if contract.interactions is None else None
        if self.who is not None and limited is not None:
            self._findings.crowded(self.who.times.astype(np.int64))
        time = contract.interactions.time if contract.interactions else None
        days = self._days.facts() if self._days else None
        labelled = contract.label in self._names
        return Profile(
            made=self._wish.today.isoformat(),
            contract=contract.digest(),
            rows=self.rows,
            stops=tuple(self._stops()),
            columns=tuple(tally.facts(days if tally.role.name == time else None) for tally in self._columns),
            left_out=left_out,
            customers=self.who.facts(limited, doubled) if self.who is not None else None,
            label=LabelFacts(ones=self._ones, zeros=self._zeros, other=self._other) if labelled else None,
            anonymity=self._groups.facts() if self._groups is not None else None,
        )

    def _stops(self) -> list[Fault]:
        contract, found = self._contract, []
        wanted = [contract.customer, contract.label, *(column.name for column in contract.columns)]
        if contract.interactions is not None:
            wanted += [contract.interactions.item, contract.interactions.time, contract.interactions.value or ""]
        for name in wanted:
            times = self._all.count(name)
            if name and name not in self._names:
                rule, fix = ("is there twice", "keep one of them") if times > 1 else ("is missing", "add it")
                found.append(Fault(f"column {name}", rule, fix))
        told = self._findings.faults("the table")
        found += [Fault(one.place.removeprefix("the table "), one.rule, one.fix) for one in told]
        return found + (self._days.faults() if self._days else [])
