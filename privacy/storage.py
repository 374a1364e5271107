"""The ledger's file: SQLite, append-only, never half-written. What the entries mean is `ledger.py`'s.

WAL mode with synchronous=FULL: with NORMAL, acknowledged commits are lost on power failure. Triggers refuse every
change and removal of an entry. Two small tables are an index over the entries and follow from them: what is spent,
and which reservations are open. They change in the same transactions as the entries.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import Fault, LedgerFault

__all__ = ["VERSION", "connect", "faults", "lay", "make", "transaction"]

VERSION = 2

_ENTRIES = (
    # nodes: the perfect sub-trees of the Merkle tree that end with the entry, the leaf first, 32 bytes each.
    """CREATE TABLE entries (
        seq   INTEGER PRIMARY KEY CHECK (seq > 0),
        at    TEXT NOT NULL,
        kind  TEXT NOT NULL,
        key   TEXT UNIQUE,
        body  TEXT NOT NULL,
        salt  TEXT NOT NULL,
        nodes BLOB NOT NULL CHECK (length(nodes) >= 32 AND length(nodes) % 32 = 0)
    ) STRICT""",
    """CREATE INDEX entries_by_release ON entries (json_extract(body, '$.release'))
       WHERE kind IN ('settle', 'consent', 'refusal', 'model')""",
    "CREATE INDEX entries_by_kind ON entries (kind) WHERE kind NOT IN ('reserve', 'settle')",
    """CREATE TABLE checkpoints (
        size INTEGER NOT NULL,
        by   TEXT NOT NULL,
        note TEXT NOT NULL,
        PRIMARY KEY (size, by)
    ) STRICT""",
    """CREATE TABLE spent (
        grp     TEXT NOT NULL,
        span    TEXT NOT NULL,
        segment TEXT NOT NULL,
        count   INTEGER NOT NULL,
        curve   TEXT NOT NULL,
        PRIMARY KEY (grp, span, segment)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE unsettled (seq INTEGER PRIMARY KEY) STRICT",
)
_GUARDS = (
    """CREATE TRIGGER spent_only_grows BEFORE UPDATE ON spent WHEN new.count <> old.count + 1
       BEGIN SELECT RAISE(ABORT, 'what is spent only grows'); END""",
    """CREATE TRIGGER spent_is_never_removed BEFORE DELETE ON spent
       BEGIN SELECT RAISE(ABORT, 'what is spent only grows'); END""",
    *(
        f"""CREATE TRIGGER {table}_are_never_{what}d BEFORE {verb} ON {table}
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"""
        for table in ("entries", "checkpoints")
        for what, verb in (("change", "UPDATE"), ("remove", "DELETE"))
    ),
)

_FIXES = {
    "SQLITE_FULL": "free some space",
    "SQLITE_IOERR_WRITE": "free some space",
    "SQLITE_BUSY": "wait for the other process that writes it",
    "SQLITE_CANTOPEN": "check the path and its rights",
    "SQLITE_READONLY": "check the path and its rights",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open the file with the settings that durability needs."""
    db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def lay(db: sqlite3.Connection) -> None:
    """Make the tables of this version."""
    for statement in (*_ENTRIES, *_GUARDS, f"PRAGMA user_version = {VERSION}"):
        db.execute(statement)


def make(path: Path) -> None:
    """Make an empty ledger, whole or not at all, for its owner alone.

    It is made beside its place and then linked there: SQLite's switch to WAL does not wait for another process,
    and the files that SQLite keeps beside a database take the rights that it has when they are made.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(connect(beside)) as db:
        lay(db)
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.link(beside, path)
    beside.unlink()
    sync_folder(path.parent)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Hold the file's write lock from before anything is read, so that check and charge are one step."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextlib.contextmanager
def faults(path: Path) -> Iterator[None]:
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
