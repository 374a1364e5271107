"""The ledger: one partner's append-only account of what was asked, charged and released.

Rules this module enforces:
- reserve, then draw noise, then settle: a reservation is durable before the first random draw, and one that
  was never settled counts in full for ever;
- the budget is checked and the reservation written in one transaction, so concurrent studies cannot overspend
  together;
- nothing is ever updated or deleted (triggers refuse it);
- an epsilon is never stored: entries carry events and their Rényi curves.

Storage is SQLite in WAL mode with synchronous=FULL: with NORMAL, acknowledged commits are lost on power
failure. The format is described in `docs/formats/ledger.md`.
"""

import contextlib
import datetime
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coterie.privacy.canonical import canonical
from coterie.privacy.charges import (
    Charge,
    Entry,
    Limit,
    Reservation,
    charge_of,
    refuse_beyond,
    refuse_beyond_declared,
    reservation_of,
    spent_of,
)
from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.events import event_to_dict
from coterie.privacy.renyi import curve

__all__ = ["Ledger"]

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE entries (
        seq  INTEGER PRIMARY KEY CHECK (seq > 0),
        at   TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('consent', 'refusal', 'reserve', 'settle', 'lost')),
        key  TEXT UNIQUE,
        body TEXT NOT NULL
    ) STRICT""",
    """CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_are_never_removed BEFORE DELETE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)

_FIXES = {
    "SQLITE_FULL": "free some space",
    "SQLITE_IOERR_WRITE": "free some space",
    "SQLITE_BUSY": "wait for the other process that writes it",
    "SQLITE_CANTOPEN": "check the path and its rights",
    "SQLITE_READONLY": "check the path and its rights",
}


class Ledger:
    """One open ledger; use as a context manager, under the workspace's lock.

    Opening never makes one: a ledger that has vanished must not be taken for one in which nothing is spent.

    Args:
        path: The SQLite file, made by `create`.
        clock: Returns the time in UTC.

    Raises:
        LedgerFault: The file is missing, cannot be opened, or is not a ledger of this version.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime.datetime]) -> None:
        self._path = path
        self._clock = clock
        if not path.is_file():
            raise LedgerFault(Fault(str(path), "is missing", "restore it; without it nothing may be released"))
        with _faults(path):
            path.chmod(0o600)
            self._db = _connect(path)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # an emptied file is not taken for a new ledger: that would give the budget back
            raise LedgerFault(Fault(str(path), "is not a ledger", "restore it, or give another path"))
        if version != _VERSION:
            raise LedgerFault(Fault(str(path), f"has format {version}", f"use a coterie that reads {version}"))

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty ledger, once in the life of a workspace.

        Raises:
            LedgerFault: There is one already, or it cannot be made.
        """
        if path.exists():
            raise LedgerFault(Fault(str(path), "exists", "a ledger is never begun anew"))
        with _faults(path):
            _found(path)

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._db.close()

    def record(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Append an entry that charges nothing: a "consent" or a "refusal"."""
        with _faults(self._path), self._transaction():
            return self._append(kind, body, key=None)

    def reserve(self, charge: Charge, limits: Sequence[Limit], *, declared: int) -> Reservation:
        """Charge for a release before it is made.

        Args:
            charge: What is to be paid.
            limits: Budgets across studies that must hold after the charge.
            declared: How many charges with this event the plan declared for this group.

        Returns:
            The durable reservation.

        Raises:
            BudgetExhausted: A limit or the plan's own declaration would be exceeded.
            LedgerFault: The charge was made before, or the ledger cannot be written.

        Guarantees:
            When it returns, the charge survives a crash of process, system or power.
        """
        asked = curve([charge.event])
        body = {
            "plan": charge.plan,
            "purpose": charge.purpose,
            "step": charge.step,
            "attempt": charge.attempt,
            "group": charge.group,
            "event": event_to_dict(charge.event),
            "curve": list(asked),
            "random": charge.random,
        }
        with _faults(self._path), self._transaction():
            self.would_carry(charge, limits, declared=declared)
            entry = self._append("reserve", body, key=charge.key)
        return Reservation(entry.seq, charge, None, lost=False)

    def would_carry(self, charge: Charge, limits: Sequence[Limit], *, declared: int) -> None:
        """Raise BudgetExhausted where `reserve` would; writes nothing."""
        reservations = self.reservations()
        refuse_beyond_declared(charge, [r.charge for r in reservations], declared)
        asked = curve([charge.event])
        for limit in limits:
            refuse_beyond(limit, charge, asked, spent_of(reservations, charge.group, limit.purpose))

    def settle(self, reservation: Reservation, release: str) -> Entry:
        """Bind a reservation to the digest of the release that it pays for."""
        body = {"reserve": reservation.seq, "release": release}
        with _faults(self._path), self._transaction():
            return self._append("settle", body, key=f"settle/{reservation.seq}")

    def recover(self) -> tuple[Reservation, ...]:
        """Write down every reservation that a crash left unsettled; each stays spent in full.

        Returns:
            Those found now.
        """
        with _faults(self._path), self._transaction():
            found = tuple(r for r in self.reservations() if r.settled is None and not r.lost)
            for reservation in found:
                self._append("lost", {"reserve": reservation.seq}, key=f"settle/{reservation.seq}")
        return found

    def entries(self) -> Iterator[Entry]:
        """Yield every entry in order.

        Raises:
            LedgerFault: An entry is missing or is not a JSON object.
        """
        with _faults(self._path):
            rows = self._db.execute("SELECT seq, at, kind, body FROM entries ORDER BY seq").fetchall()
        for expected, (seq, at, kind, body) in enumerate(rows, start=1):
            if seq != expected:
                raise LedgerFault(Fault(f"{self._path} entry {expected}", "is missing", "restore the ledger"))
            try:
                read = json.loads(body)
            except ValueError:
                read = None
            if not isinstance(read, dict):
                raise LedgerFault(Fault(f"{self._path} entry {seq}", "is not a JSON object", "restore the ledger"))
            yield Entry(seq, at, kind, read)

    def reservations(self) -> tuple[Reservation, ...]:
        """Return every reservation with what became of it."""
        charges: dict[int, Charge] = {}
        settled: dict[int, str] = {}
        lost: set[int] = set()
        for entry in self.entries():
            if entry.kind == "reserve":
                charges[entry.seq] = charge_of(entry)
            elif entry.kind == "settle":
                settled[reservation_of(entry)] = str(entry.body.get("release"))
            elif entry.kind == "lost":
                lost.add(reservation_of(entry))
        return tuple(Reservation(seq, c, settled.get(seq), seq in lost) for seq, c in charges.items())

    def spent(self, group: str, purpose: str | None = None) -> tuple[float, ...]:
        """Return the Rényi curve of everything reserved for `group`, settled or not."""
        return spent_of(self.reservations(), group, purpose)

    def paid_for(self, release: str) -> bool:
        """Return whether a release with this digest is settled or recorded, and so may leave."""
        with _faults(self._path):
            found = self._db.execute(
                "SELECT 1 FROM entries WHERE kind IN ('settle', 'consent', 'refusal') "
                "AND json_extract(body, '$.release') = ? LIMIT 1",
                (release,),
            ).fetchone()
        return found is not None

    def _append(self, kind: str, body: Mapping[str, Any], *, key: str | None) -> Entry:
        at = self._clock().isoformat()
        seq = self._db.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM entries").fetchone()[0]
        text = canonical(body).decode()
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (seq, at, kind, key, text))
        return Entry(seq, at, kind, body)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock before anything is read, so check and charge are one step.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one clear error."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise LedgerFault(Fault(str(path), "holds this charge already", "start a new attempt")) from None
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        fix = _FIXES.get(code, "restore the file")
        raise LedgerFault(Fault(str(path), f"cannot be used ({code})", fix)) from None
    except OSError as error:
        fault = Fault(str(path), f"cannot be opened ({error.strerror})", "check the path and its rights")
        raise LedgerFault(fault) from None


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def _found(path: Path) -> None:
    """Make an empty ledger, whole or not at all, for its owner alone.

    It is made beside its place and then linked there: SQLite's switch to WAL does not wait for another process,
    and the files that SQLite keeps beside a database take the rights that it has when they are made.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(_connect(beside)) as db:
        for statement in (*_SCHEMA, f"PRAGMA user_version = {_VERSION}"):
            db.execute(statement)
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.link(beside, path)
    beside.unlink()
    sync_folder(path.parent)
