"""The coordinator as a witness: it keeps the last checkpoint of every partner's ledger, and cosigns only extensions.

A partner that puts an older ledger back, or shows a reviewer another history than the federation saw, contradicts a
note that it signed itself.
"""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

from coterie.privacy.canonical import canonical
from coterie.privacy.checkpoint import cosign, read_note
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault, LedgerFault
from coterie.privacy.identity import Identity
from coterie.privacy.merkle import EMPTY, check_consistency
from coterie.privacy.release import LedgerHead

__all__ = ["Witness"]


class Witness:
    """The checkpoints that a coordinator saw, by the partners' keys.

    Args:
        folder: The coordinator's; made when missing.
        identity: Its signing key.
        clock: Returns the time in UTC.

    Raises:
        FileFault: What is there is damaged.
    """

    def __init__(self, folder: Path, identity: Identity, clock: Callable[[], datetime.datetime]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.identity = identity
        self._path = folder / "heads.json"
        self._clock = clock
        self._notes: dict[str, str] = {}
        if self._path.exists():
            try:
                self._notes = json.loads(self._path.read_bytes())
                if not isinstance(self._notes, dict) or not all(isinstance(v, str) for v in self._notes.values()):
                    raise TypeError
            except (OSError, ValueError, TypeError, RecursionError):
                fix = "restore it; without it a partner could put an older ledger back"
                raise FileFault(Fault(str(self._path), "is damaged", fix)) from None

    def note(self, partner: str) -> str:
        """Return the last cosigned checkpoint of a partner's ledger, "" for none.

        Args:
            partner: The partner's public key.
        """
        return self._notes.get(partner, "")

    def see(self, partner: str, head: LedgerHead) -> None:
        """Check a checkpoint against the last one, cosign it and keep it.

        Args:
            partner: The public key of the partner that sent it.
            head: What it sent.

        Raises:
            LedgerFault: It is not signed by the partner, or does not extend what was seen before.
        """
        checkpoint, _ = read_note(head.note, partner=partner)
        size, root = 0, EMPTY
        if self.note(partner):
            seen, _ = read_note(self.note(partner), partner=partner, coordinators=(self.identity.public,))
            size, root = seen.size, seen.root
        try:
            proof = [bytes.fromhex(step) for step in head.proof]
        except ValueError:
            proof = []
        if head.since != size:
            raise LedgerFault(Fault("the ledger", "was proved against another checkpoint", "ask again"))
        check_consistency((size, root), (checkpoint.size, checkpoint.root), proof)
        self._notes[partner] = cosign(head.note, self.identity, int(self._clock().timestamp()))
        write_durably(self._path, canonical(self._notes))
