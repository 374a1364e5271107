"""The ledger as a transparency log: its size, roots, proofs, and the checkpoints that others cosigned."""

import sqlite3
from pathlib import Path
from typing import Any

from coterie.privacy import storage
from coterie.privacy.checkpoint import sign_checkpoint
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.identity import Identity
from coterie.privacy.merkle import consistency_proof, root_of

__all__ = ["Log"]


class Log:
    """The half of a ledger that looks at entries as leaves; `Ledger` is the half that knows what they say."""

    _db: sqlite3.Connection
    _path: Path

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._last()[0]

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` entries."""
        return root_of(size, self._node)

    def checkpoint(self, identity: Identity) -> str:
        """Return the ledger's size and root as a note signed by its partner."""
        size = self.size
        return sign_checkpoint(size, self.root(size), identity)

    def proof_since(self, earlier: int, size: int) -> tuple[bytes, ...]:
        """Return the proof that the first `size` entries extend the first `earlier`."""
        return consistency_proof(earlier, size, self._node)

    def keep_checkpoint(self, size: int, note: str, by: str) -> None:
        """Keep a cosigned checkpoint, one of a size for each coordinator; `by` is the coordinator's public key."""
        with storage.faults(self._path), storage.transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?)", (size, by, note))

    def cosigned_by(self, coordinator: str) -> bool:
        """Return whether a checkpoint is kept that this coordinator cosigned."""
        return bool(self._rows("SELECT 1 FROM checkpoints WHERE by = ? LIMIT 1", coordinator))

    def checkpoints(self) -> tuple[str, ...]:
        """Return the cosigned checkpoints that were kept, oldest first."""
        return tuple(note for (note,) in self._rows("SELECT note FROM checkpoints ORDER BY size, by"))

    def _last(self) -> tuple[int, str]:
        rows = self._rows("SELECT seq, at FROM entries ORDER BY seq DESC LIMIT 1")
        return (rows[0][0], rows[0][1]) if rows else (0, "")

    def _node(self, level: int, index: int) -> bytes:
        (nodes,) = self._at("SELECT nodes FROM entries WHERE seq = ?", (index + 1) << level)
        return bytes(nodes[32 * level : 32 * level + 32])

    def _at(self, query: str, seq: int) -> Any:  # noqa: ANN401 - a row of SQLite's
        for row in self._rows(query, seq):
            return row
        raise LedgerFault(Fault(f"{self._path} entry {seq}", "is missing", "restore the ledger"))

    def _rows(self, query: str, *values: object) -> list[Any]:
        with storage.faults(self._path):
            return self._db.execute(query, values).fetchall()
