"""Exact local counts, sealed: what was opened for a charge stays in the workspace, and the ledger commits to it.

PRIVACY rule 17: exact counts of rows leave neither with the ledger nor with its export, and lie nowhere in the clear. A
record is on disk before its charge is, in a file that is named by its commitment, and is never written over.

    counts/<digest of the plan>/<commitment>    one record: about what, how many of what, 32 random bytes

Guarantees:
    The commitment is SHA-256 over a label and the canonical JSON of the record with its salt. It hides: without the
    salt, 256 random bits, counts that are guessed cannot be tried against it. It binds: two records with one
    commitment would be a collision of SHA-256. A reviewer who is shown a record can hold it against the ledger
    (`check`).

Leaks:
    A file's size tells nothing but whole units of 4 KiB, and its name nothing but what the ledger says. The key lies in
    the workspace, as those of other small secrets do: a copy of `counts` alone is worth nothing, one of the whole
    workspace opens the counts. How many records there are tells how often rows were opened.
"""

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from coterie.clients.sealed import read_sealed, seal_key, write_sealed
from coterie.clients.workspace import Workspace
from coterie.privacy.canonical import canonical
from coterie.privacy.counts import NO_RECORD, Record, check, record_of
from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import CoterieError, Fault, FileFault

__all__ = ["Keeping", "Record", "check", "keeping_of"]

_SALT = 32
_UNIT = 4096  # bytes: how long a record is would tell how many digits its counts have
_HEX = re.compile(r"[0-9a-f]{64}")


class Keeping:
    """The sealed counts of one workspace, whose lock is held.

    Args:
        folder: Where they are kept; made where it is missing.
        key: 32 bytes, from `sealed.seal_key`.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder, self._key = folder, key

    def keep(self, about: Mapping[str, str], counts: Mapping[str, int]) -> str:
        """Seal a record, durably, and return the commitment to it.

        Args:
            about: plan (its digest), purpose, step and attempt.
            counts: Whatever was counted, each from 0 to 2**53 - 1.

        Raises:
            FileFault: It cannot be written, or is no record.
        """
        plain = {name: int(count) for name, count in counts.items()}
        record = record_of({"about": dict(about), "counts": plain, "salt": secrets.token_hex(_SALT)}, "the counts")
        folder = self._folder / record.about["plan"].removeprefix("sha256:")
        data = canonical(record.to_dict())
        padded = data.ljust(-(-len(data) // _UNIT) * _UNIT)
        try:
            if not folder.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                folder.mkdir(mode=0o700)
                sync_folder(self._folder.parent)
                sync_folder(self._folder)
        except OSError as error:
            fix = "free some space or check its rights"
            raise FileFault(Fault(str(folder), f"cannot be made ({error.strerror})", fix)) from None
        write_sealed(folder / record.commitment.removeprefix("sha256:"), self._key, padded)
        return record.commitment

    def read_all(self) -> list[Record]:
        """Return every record, by plan, step and attempt.

        Raises:
            FileFault: A file was changed, moved or sealed under another key; each is named.
        """
        records, faults = list[Record](), list[Fault]()
        for path in sorted(self._folder.glob("*/*")):
            if _HEX.fullmatch(path.name) is None:
                continue  # what a crash left beside a file that it had not finished
            try:
                records.append(self._read(path))
            except CoterieError as error:
                faults += error.faults
        if faults:
            raise FileFault(*faults)
        return sorted(records, key=_order)

    def _read(self, path: Path) -> Record:
        data = read_sealed(path, self._key) or b""
        try:
            record = record_of(json.loads(data), str(path))
        except ValueError:
            raise FileFault(Fault(str(path), *NO_RECORD)) from None
        if (path.parent.name, path.name) != (
            record.about["plan"].removeprefix("sha256:"),
            record.commitment.removeprefix("sha256:"),
        ):
            raise FileFault(Fault(str(path), "is another record's file", "restore it"))
        return record


def keeping_of(workspace: Workspace) -> Keeping:
    """Return the sealed counts of a workspace, whose lock is held.

    Raises:
        FileFault: Their key cannot be made or read.
    """
    return Keeping(workspace.root / "counts", seal_key(workspace.root / "keys" / "counts.key"))


def _order(record: Record) -> tuple[str, str, int, int]:
    kind, _, number = record.about.get("step", "").partition("/")
    return record.about["plan"], kind, _whole(number), _whole(record.about.get("attempt", ""))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
