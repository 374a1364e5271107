"""The ledger: one partner's append-only account of what was asked, charged and released.

Rules this module enforces:
- reserve, then draw noise, then settle: a reservation is durable before the first random draw, and one that
  was never settled counts in full for ever;
- the budget is checked and the reservation written in one transaction, so concurrent studies cannot overspend
  together;
- nothing is ever updated or deleted (triggers refuse it), and every entry is a leaf of a Merkle tree;
- time never goes back: where the clock does, an entry takes the time of the one before;
- an epsilon is never stored: entries carry events, and Rényi curves are summed.

Theorems: a filter stays valid for studies that are chosen adaptively (`renyi.py`) and also when they run
interleaved (Haney, Shoemate, Tian, Vadhan, Vyrros, Xu and Zhang, "Concurrent Composition for Interactive
Differential Privacy with Adaptive Privacy-Loss Parameters", CCS 2023, theorem 4 for Rényi DP of a fixed order).

The format is described in `docs/formats/ledger.md`; its file is `storage.py`'s.
"""

import datetime
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coterie.privacy import storage
from coterie.privacy.canonical import canonical
from coterie.privacy.charges import (
    Charge,
    Entry,
    Limit,
    Reservation,
    charge_of,
    refuse_beyond,
    refuse_beyond_declared,
)
from coterie.privacy.entries import charge_body, check_entry, entry_bytes
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.log import Log
from coterie.privacy.merkle import completed, leaf_hash
from coterie.privacy.renyi import curve
from coterie.privacy.spending import counts_of, spend, spent_in
from coterie.privacy.upgrade import upgrade

__all__ = ["Ledger"]


class Ledger(Log):
    """One open ledger; use as a context manager, under the workspace's lock.

    Opening never makes one: a ledger that has vanished must not be taken for one in which nothing is spent.

    Args:
        path: The SQLite file, made by `create`; one of an earlier version is carried over, whole or not at all.
        clock: Returns the time in UTC.

    Raises:
        LedgerFault: The file is missing, cannot be opened, or is not a ledger of a version that is known here.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime.datetime]) -> None:
        self._path = path
        self._clock = clock
        if not path.is_file():
            raise LedgerFault(Fault(str(path), "is missing", "restore it; without it nothing may be released"))
        with storage.faults(path):
            path.chmod(0o600)
            self._db = storage.connect(path)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 1:
                upgrade(self._db)
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # an emptied file is not taken for a new ledger: that would give the budget back
            raise LedgerFault(Fault(str(path), "is not a ledger", "restore it, or give another path"))
        if version != storage.VERSION:
            raise LedgerFault(Fault(str(path), f"has format {version}", f"use a coterie that reads {version}"))

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty ledger, once in the life of a workspace.

        Raises:
            LedgerFault: There is one already, or it cannot be made.
        """
        if path.exists():
            raise LedgerFault(Fault(str(path), "exists", "a ledger is never begun anew"))
        with storage.faults(path):
            storage.make(path)

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._db.close()

    def record(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Append an entry that charges nothing.

        Raises:
            LedgerFault: The entry is not in a shape that may leave with an export; written, it would stay for ever.
        """
        check_entry(Entry(0, "", kind, body))
        with storage.faults(self._path), storage.transaction(self._db):
            return self._append(kind, body, key=None)

    def reserve(self, charge: Charge, limits: Sequence[Limit], *, declared: int, rows: str = "") -> Reservation:
        """Charge for a release before it is made.

        Args:
            charge: What is to be paid.
            limits: Budgets across studies that must hold after the charge.
            declared: How many charges with this event the plan declared for this kind of step.
            rows: Commitment to the counts of what was opened for the charge; "" where nothing was opened. It is beside
                the charge, and no part of what makes it this one.

        Returns:
            The durable reservation.

        Raises:
            BudgetExhausted: A limit or the plan's own declaration would be exceeded.
            LedgerFault: The charge was made before, `rows` is no digest, or the ledger cannot be written.

        Guarantees:
            When it returns, the charge survives a crash of process, system or power.
        """
        body = charge_body(charge, rows)
        with storage.faults(self._path), storage.transaction(self._db):
            self.would_carry(charge, limits, declared=declared)
            entry = self._append("reserve", body, key=charge.key)
            self._db.execute("INSERT INTO unsettled VALUES (?)", (entry.seq,))
            spend(self._db, charge, entry.at)
        return Reservation(entry.seq, charge, None, lost=False)

    def would_carry(self, charge: Charge, limits: Sequence[Limit], *, declared: int) -> None:
        """Raise BudgetExhausted where `reserve` would; writes nothing."""
        refuse_beyond_declared(charge, [charge_of(entry) for entry in self._charged(charge.plan)], declared)
        asked, year = curve([charge.event]), self.year
        for limit in limits:
            # The year that counts is the one in which the entry would be written.
            now = limit if limit.year is None else replace(limit, year=year)
            refuse_beyond(now, charge, asked, self.spent_in(now.span, charge.group, charge.segments))

    def settle(self, reservation: Reservation, release: str) -> Entry:
        """Bind a reservation to the digest of the release that it pays for."""
        with storage.faults(self._path), storage.transaction(self._db):
            return self._close("settle", {"reserve": reservation.seq, "release": release})

    def recover(self) -> tuple[Reservation, ...]:
        """Write down every reservation that a crash left unsettled; each stays spent in full.

        Returns:
            Those found now.
        """
        with storage.faults(self._path), storage.transaction(self._db):
            rows = self._db.execute("SELECT seq FROM unsettled ORDER BY seq").fetchall()
            found = tuple(self._reservation(self._entry(seq)) for (seq,) in rows)
            for reservation in found:
                self._close("lost", {"reserve": reservation.seq})
        return found

    def entries(self, kind: str | None = None) -> Iterator[Entry]:
        """Yield every entry in order, or those of one kind.

        Raises:
            LedgerFault: An entry is missing or is not a JSON object.
        """
        query = "SELECT seq, at, kind, body, salt FROM entries"
        rows = self._rows(f"{query} ORDER BY seq") if kind is None else self._of_kind(query, kind)
        for expected, row in enumerate(rows, start=1):
            if kind is None and row[0] != expected:
                raise LedgerFault(Fault(f"{self._path} entry {expected}", "is missing", "restore the ledger"))
            yield self._read(row)

    def reservations(self) -> tuple[Reservation, ...]:
        """Return every reservation with what became of it."""
        return tuple(self._reservation(entry) for entry in self.entries() if entry.kind == "reserve")

    def charges_of(self, plan: str) -> tuple[Reservation, ...]:
        """Return the reservations of one plan."""
        return tuple(self._reservation(entry) for entry in self._charged(plan))

    def _charged(self, plan: str) -> list[Entry]:
        # A charge's key begins with its plan and "/"; "0" follows "/" in the order of texts.
        query = "SELECT seq, at, kind, body, salt FROM entries WHERE key >= ? AND key < ? ORDER BY seq"
        return [self._read(row) for row in self._rows(query, plan + "/", plan + "0")]

    def spent(
        self, group: str, purpose: str | None = None, *, year: int | None = None, segments: Sequence[str] = ()
    ) -> tuple[float, ...]:
        """Return the Rényi curve of everything reserved for `group`, settled or not.

        Args:
            group: Customer group.
            purpose: For this purpose alone; None for all.
            year: In this calendar year alone; None for all.
            segments: The worst of these; of all where there are none.
        """
        span = f"year/{year}" if year is not None else "life" if purpose is None else f"purpose/{purpose}"
        return self.spent_in(span, group, segments)

    def spent_in(self, span: str, group: str, segments: Sequence[str]) -> tuple[float, ...]:
        """Return what `spent` returns for one of `charges.spans_of`: the worst segment, order by order."""
        with storage.faults(self._path):
            return spent_in(self._db, group, span, segments)

    def paid_for(self, release: str) -> bool:
        """Return whether a release with this digest is settled or recorded, and so may leave."""
        query = (
            "SELECT 1 FROM entries WHERE kind IN ('settle', 'consent', 'refusal', 'model', 'keys', 'opening', "
            "'disclosure', 'manifest', 'match') "
            "AND json_extract(body, '$.release') = ? LIMIT 1"
        )
        return bool(self._rows(query, release))

    @property
    def now(self) -> datetime.datetime:
        """The time of an entry that is written now: the clock's, or the last entry's where the clock went back."""
        return datetime.datetime.fromisoformat(self._now(self._last()[1]))

    @property
    def today(self) -> datetime.date:
        """The day of an entry that is written now."""
        return self.now.date()

    @property
    def year(self) -> int:
        """The calendar year of an entry that is written now."""
        return self.today.year

    def check_index(self) -> None:
        """Hold what is kept as spent against the entries.

        Raises:
            LedgerFault: They differ: the file was damaged, or edited by hand.
        """
        kept = {row[:3]: row[3] for row in self._rows("SELECT grp, span, segment, count FROM spent")}
        if counts_of(self.entries()) != kept:
            fix = "restore the file; what is spent must follow from the entries"
            raise LedgerFault(Fault(str(self._path), "has another count of charges than its entries", fix))

    def _append(self, kind: str, body: Mapping[str, Any], *, key: str | None, at: str = "") -> Entry:
        size, last = self._last()
        entry = Entry(size + 1, at or self._now(last), kind, body, secrets.token_hex(16))
        text = canonical(body)
        nodes = b"".join(completed(size, leaf_hash(entry_bytes(entry, text)), self._node))
        row = (entry.seq, entry.at, kind, key, text.decode(), entry.salt, nodes)
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return entry

    def _close(self, kind: str, body: Mapping[str, Any]) -> Entry:
        # The time of the entry before: how long the work took tells the size of the table.
        entry = self._append(kind, body, key=f"settle/{body['reserve']}", at=self._last()[1])
        self._db.execute("DELETE FROM unsettled WHERE seq = ?", (body["reserve"],))
        return entry

    def _now(self, last: str) -> str:
        now = self._clock().astimezone(datetime.UTC).isoformat(timespec="seconds")
        return max(now, last, key=datetime.datetime.fromisoformat) if last else now

    def _entry(self, seq: int) -> Entry:
        return self._read(self._at("SELECT seq, at, kind, body, salt FROM entries WHERE seq = ?", seq))

    def _reservation(self, entry: Entry) -> Reservation:
        query = "SELECT seq, kind, json_extract(body, '$.release') FROM entries WHERE key = ?"
        rows = self._rows(query, f"settle/{entry.seq}")
        seq, kind, release = rows[0] if rows else (0, None, None)
        if kind == "settle" and not isinstance(release, str):
            raise LedgerFault(Fault(f"{self._path} entry {seq}", "names no release", "restore the ledger"))
        return Reservation(entry.seq, charge_of(entry), release if kind == "settle" else None, kind == "lost")

    def _of_kind(self, query: str, kind: str) -> list[Any]:
        hidden = "" if kind in {"reserve", "settle"} else " AND kind NOT IN ('reserve', 'settle')"  # the index's own
        return self._rows(f"{query} WHERE kind = ?{hidden} ORDER BY seq", kind)

    def _read(self, row: tuple[int, str, str, str, str]) -> Entry:
        seq, at, kind, body, salt = row
        try:
            read = json.loads(body)
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise LedgerFault(Fault(f"{self._path} entry {seq}", "is not a JSON object", "restore the ledger"))
        return Entry(seq, at, kind, read, salt)
