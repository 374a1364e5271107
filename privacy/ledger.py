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
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import BudgetExhausted, Fault, LedgerFault
from coterie.privacy.events import Event, event_from_dict, event_to_dict
from coterie.privacy.renyi import Filter, curve, total

__all__ = ["Charge", "Entry", "Ledger", "Limit", "Reservation"]

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


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Args:
        seq: 1, 2, 3, ...
        at: When it was written, ISO 8601 in UTC, by the partner's clock.
        kind: "consent", "refusal", "reserve", "settle" or "lost".
        body: What happened, as plain JSON values.
    """

    seq: int
    at: str
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Charge:
    """What is to be paid before a release may be made.

    Args:
        plan: Digest of the plan.
        purpose: Its purpose.
        step: Which release of the plan, e.g. "train/3".
        attempt: 1, or more after a lost attempt.
        group: Customer group that it touches; groups are disjoint for life.
        event: What it costs.
        random: Name of the random source of its noise.
    """

    plan: str
    purpose: str
    step: str
    attempt: int
    group: str
    event: Event
    random: str

    @property
    def key(self) -> str:
        """What makes the charge unique: a release is paid once per plan, step and attempt."""
        return f"{self.plan}/{self.step}/{self.attempt}"


@dataclass(frozen=True)
class Limit:
    """A budget over all studies, or over those of one purpose.

    Args:
        budget: The filter.
        purpose: Only charges of this purpose count; None for all.
    """

    budget: Filter
    purpose: str | None = None

    @property
    def name(self) -> str:
        """How the limit is called in an error."""
        return "lifetime budget" if self.purpose is None else f"budget of purpose {self.purpose}"


@dataclass(frozen=True)
class Reservation:
    """A charge that the ledger holds.

    Args:
        seq: Its entry.
        charge: What was charged.
        settled: Digest of the release that it paid for, or None.
        lost: Whether a crash left it without a release.
    """

    seq: int
    charge: Charge
    settled: str | None
    lost: bool


class Ledger:
    """One open ledger; use as a context manager, under the workspace's lock.

    Args:
        path: The SQLite file; made when missing.
        clock: Returns the time in UTC.

    Raises:
        LedgerFault: The file cannot be opened, or is not a ledger of this version.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime.datetime]) -> None:
        self._path = path
        self._clock = clock
        with self._faults():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                with self._transaction():
                    for statement in _SCHEMA:
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise LedgerFault(Fault(str(path), f"has format {version}", f"use a coterie that reads {version}"))
        path.chmod(0o600)

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
        with self._faults(), self._transaction():
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
        with self._faults(), self._transaction():
            self.would_carry(charge, limits, declared=declared)
            entry = self._append("reserve", body, key=charge.key)
        return Reservation(entry.seq, charge, None, lost=False)

    def would_carry(self, charge: Charge, limits: Sequence[Limit], *, declared: int) -> None:
        """Raise BudgetExhausted where `reserve` would; writes nothing."""
        reservations = self.reservations()
        _refuse_beyond_declared(charge, [r.charge for r in reservations], declared)
        asked = curve([charge.event])
        for limit in limits:
            _refuse_beyond(limit, charge, asked, _spent(reservations, charge.group, limit.purpose))

    def settle(self, reservation: Reservation, release: str) -> Entry:
        """Bind a reservation to the digest of the release that it pays for."""
        body = {"reserve": reservation.seq, "release": release}
        with self._faults(), self._transaction():
            return self._append("settle", body, key=f"settle/{reservation.seq}")

    def recover(self) -> tuple[Reservation, ...]:
        """Write down every reservation that a crash left unsettled; each stays spent in full.

        Returns:
            Those found now.
        """
        with self._faults(), self._transaction():
            found = tuple(r for r in self.reservations() if r.settled is None and not r.lost)
            for reservation in found:
                self._append("lost", {"reserve": reservation.seq}, key=f"settle/{reservation.seq}")
        return found

    def entries(self) -> Iterator[Entry]:
        """Yield every entry in order.

        Raises:
            LedgerFault: An entry is missing or is not JSON.
        """
        with self._faults():
            rows = self._db.execute("SELECT seq, at, kind, body FROM entries ORDER BY seq").fetchall()
        for expected, (seq, at, kind, body) in enumerate(rows, start=1):
            if seq != expected:
                raise LedgerFault(Fault(f"{self._path} entry {expected}", "is missing", "restore the ledger"))
            try:
                yield Entry(seq, at, kind, json.loads(body))
            except ValueError:
                raise LedgerFault(Fault(f"{self._path} entry {seq}", "is not JSON", "restore it")) from None

    def reservations(self) -> tuple[Reservation, ...]:
        """Return every reservation with what became of it."""
        charges: dict[int, Charge] = {}
        settled: dict[int, str] = {}
        lost: set[int] = set()
        for entry in self.entries():
            if entry.kind == "reserve":
                charges[entry.seq] = _charge(entry)
            elif entry.kind == "settle":
                settled[int(entry.body["reserve"])] = str(entry.body["release"])
            elif entry.kind == "lost":
                lost.add(int(entry.body["reserve"]))
        return tuple(Reservation(seq, c, settled.get(seq), seq in lost) for seq, c in charges.items())

    def spent(self, group: str, purpose: str | None = None) -> tuple[float, ...]:
        """Return the Rényi curve of everything reserved for `group`, settled or not."""
        return _spent(self.reservations(), group, purpose)

    def paid_for(self, release: str) -> bool:
        """Return whether a release with this digest is settled or recorded, and so may leave."""
        with self._faults():
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
    def _faults(self) -> Iterator[None]:
        """Turn what SQLite says into one clear error."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise LedgerFault(Fault(str(self._path), "holds this charge already", "start a new attempt")) from None
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
            fix = "free some space" if code in {"SQLITE_FULL", "SQLITE_IOERR_WRITE"} else "restore the file"
            raise LedgerFault(Fault(str(self._path), f"cannot be used ({code})", fix)) from None


def _refuse_beyond_declared(charge: Charge, earlier: Sequence[Charge], declared: int) -> None:
    """Keep the study within the composition that it declared before it started."""
    same = [c for c in earlier if c.plan == charge.plan and c.group == charge.group]
    if len(same) >= declared or any(c.event != charge.event for c in same):
        raise BudgetExhausted(
            Fault(
                "the study's budget",
                f"declared {declared} releases on group {charge.group}, {len(same)} are spent: 0 more fit",
                "plan a new study; spare attempts are declared as training.spare",
            )
        )


def _refuse_beyond(limit: Limit, charge: Charge, asked: Sequence[float], spent: Sequence[float]) -> None:
    """Keep every budget across studies."""
    if not limit.budget.admits(spent, asked):
        left = max(0.0, limit.budget.epsilon - limit.budget.spent_epsilon(spent))
        raise BudgetExhausted(
            Fault(
                limit.name,
                f"has epsilon {left:.3g} of {limit.budget.epsilon:.3g} left for group {charge.group}, "
                f"enough for {limit.budget.runs_left(spent, asked)} more releases like this",
                "ask for a smaller study, or decide on a larger budget in policy.toml",
            )
        )


def _spent(reservations: Sequence[Reservation], group: str, purpose: str | None) -> tuple[float, ...]:
    mine = (r.charge for r in reservations if r.charge.group == group)
    return total(curve([c.event]) for c in mine if purpose in (None, c.purpose))


def _charge(entry: Entry) -> Charge:
    body = entry.body
    try:
        return Charge(
            plan=str(body["plan"]),
            purpose=str(body["purpose"]),
            step=str(body["step"]),
            attempt=int(body["attempt"]),
            group=str(body["group"]),
            event=event_from_dict(body["event"]),
            random=str(body["random"]),
        )
    except (KeyError, TypeError, ValueError):
        raise LedgerFault(Fault(f"entry {entry.seq}", "is not a reservation", "restore the ledger")) from None
