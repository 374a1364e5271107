"""Ledgers of earlier versions: carried over entry by entry, each as it was, under the tree of this version."""

import json
import secrets
import sqlite3

from coterie.privacy import storage
from coterie.privacy.charges import Entry, charge_of, reservation_of
from coterie.privacy.entries import leaf_of
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.merkle import completed
from coterie.privacy.spending import spend

__all__ = ["upgrade"]


def upgrade(db: sqlite3.Connection) -> None:
    """Carry a ledger of version 1 over, in one transaction.

    Args:
        db: The open file.

    Raises:
        LedgerFault: An entry is missing or cannot be read; the file is left as it was.
    """
    with storage.transaction(db):
        if db.execute("PRAGMA user_version").fetchone()[0] != 1:  # another process was faster
            return
        for trigger in ("entries_are_never_changed", "entries_are_never_removed"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("ALTER TABLE entries RENAME TO earlier")
        storage.lay(db)
        rows = db.execute("SELECT seq, at, kind, key, body FROM earlier ORDER BY seq").fetchall()
        for expected, row in enumerate(rows, start=1):
            if row[0] != expected:
                raise LedgerFault(Fault(f"entry {expected}", "is missing", "restore the ledger"))
            _carry(db, row)
        db.execute("DROP TABLE earlier")


def _carry(db: sqlite3.Connection, row: tuple[int, str, str, str | None, str]) -> None:
    seq, at, kind, key, body = row
    try:
        entry = Entry(seq, at, kind, json.loads(body), secrets.token_hex(16))
        leaf = leaf_of(entry)
        if not isinstance(entry.body, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise LedgerFault(Fault(f"entry {seq}", "is not a JSON object", "restore the ledger")) from None

    def node(level: int, index: int) -> bytes:
        (nodes,) = db.execute("SELECT nodes FROM entries WHERE seq = ?", ((index + 1) << level,)).fetchone()
        return bytes(nodes[32 * level : 32 * level + 32])

    nodes = b"".join(completed(seq - 1, leaf, node))
    db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", (seq, at, kind, key, body, entry.salt, nodes))
    if kind == "reserve":
        spend(db, charge_of(entry), at)
        db.execute("INSERT INTO unsettled VALUES (?)", (seq,))
    elif kind in {"settle", "lost"}:
        db.execute("DELETE FROM unsettled WHERE seq = ?", (reservation_of(entry),))
