"""What a partner keeps of a match while it goes on: secrets and state sealed, lists of points as files.

matches/<plan>/state      secrets, commitment, manifest and the legs of all lists, sealed
matches/<plan>/order      where each of the own list's points came from, sealed
matches/<plan>/*.points   points, which say nothing to whoever lacks one partner's secret
matches/<plan>/*.parcel   parcels as they left: the same question gets the same bytes
matches/<plan>/ended      once all of the others are destroyed: the word that the match ended with
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coterie.clients.sealed import read_sealed, seal_key, write_sealed
from coterie.clients.workspace import Workspace
from coterie.privacy.canonical import canonical
from coterie.privacy.durable import sync_folder, write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.matching.channel import Address
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.matching.errors import MatchError
from coterie.privacy.matching.legs import Leg
from coterie.privacy.matching.own import Secrets

__all__ = ["Kept", "MatchStore", "drop_matches", "kept_matching"]


@dataclass(frozen=True)
class Kept:
    """Where a match stands at this partner.

    Args:
        secrets: Its secrets of the match.
        commitment: Its own list, fixed.
        items: How many of the list's points are customers' identifiers.
        listed: Digest of the identifiers that it was made of.
        manifest: What all partners committed to; nothing before it was accepted.
        legs: Where every list stands here.
    """

    secrets: Secrets
    commitment: Commitment
    items: int
    listed: str
    manifest: tuple[Commitment, ...] = ()
    legs: tuple[Leg, ...] = ()

    def coming(self, address: Address) -> Leg | None:
        """Return the leg that a parcel comes in on, or None where there is none."""
        return next((one for one in self.legs if one.position and one.address(address.index) == address), None)

    def going(self, address: Address) -> Leg | None:
        """Return the leg that a parcel goes on from, or None where there is none."""
        return next((one for one in self.legs if not one.ends and one.onward(address.index) == address), None)

    def moved(self, leg: Leg) -> "Kept":
        """Return the state with a leg as it is now."""
        place = (leg.list, leg.position, leg.towards)
        legs = tuple(leg if (one.list, one.position, one.towards) == place else one for one in self.legs)
        return replace(self, legs=legs)


class MatchStore:
    """The files of one match.

    Args:
        workspace: Whose they are; its lock is held.
        plan: Digest of the plan.
    """

    def __init__(self, workspace: Workspace, plan: str) -> None:
        self._workspace = workspace
        self.folder = workspace.root / "matches" / plan.removeprefix("sha256:")

    def begin(self) -> None:
        """Make an empty folder, sweeping away what a crash before the commitment left."""
        self.drop()
        self.folder.mkdir(mode=0o700, parents=True)

    def drop(self) -> None:
        """Remove everything: without the secrets, nobody links tokens of this match to identifiers again."""
        state = self.folder / "state"
        state.unlink(missing_ok=True)  # first: half of a folder without it is nothing
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir():
            sync_folder(self.folder.parent)

    def end(self, word: str) -> None:
        """Destroy all that a match was made with, and keep the word that it ended with."""
        write_durably(self.folder / "ended", word.encode())
        for path in self.folder.iterdir():
            if path.name != "ended":
                path.unlink()
        sync_folder(self.folder)

    def ended(self) -> str | None:
        """Return that word, or None where the match goes on or never began."""
        path = self.folder / "ended"
        return path.read_text(encoding="ascii") if path.exists() else None

    def load(self) -> Kept | None:
        """Return the state, or None where there is none.

        Raises:
            FileFault: It is damaged.
        """
        data = read_sealed(self.folder / "state", self._key())
        if data is None:
            return None
        try:
            table = json.loads(data)
            return Kept(
                Secrets.from_bytes(bytes.fromhex(table["secrets"])),
                Commitment.from_header(table["commitment"]),
                int(table["items"]),
                str(table["listed"]),
                tuple(Commitment.from_header(one) for one in table["manifest"]),
                tuple(Leg.from_bytes(bytes.fromhex(one)) for one in table["legs"]),
            )
        except (MatchError, ValueError, KeyError, TypeError):
            fix = "the match cannot go on: ask for a new epoch"
            raise FileFault(Fault(str(self.folder / "state"), "is damaged", fix)) from None

    def save(self, kept: Kept) -> None:
        """Write the state, whole or not at all."""
        table = {
            "secrets": kept.secrets.to_bytes().hex(),
            "commitment": kept.commitment.header,
            "items": kept.items,
            "listed": kept.listed,
            "manifest": [one.header for one in kept.manifest],
            "legs": [leg.to_bytes().hex() for leg in kept.legs],
        }
        write_sealed(self.folder / "state", self._key(), canonical(table))

    def keep_order(self, order: NDArray[np.int64]) -> None:
        """Seal where each of the own list's points came from."""
        write_sealed(self.folder / "order", self._key(), order.astype("<i8").tobytes())

    def order(self) -> NDArray[np.int64]:
        """Return it.

        Raises:
            FileFault: It is missing or damaged.
        """
        data = read_sealed(self.folder / "order", self._key())
        if data is None:
            raise FileFault(
                Fault(str(self.folder / "order"), "is missing", "the match cannot go on: ask for a new epoch")
            )
        return np.frombuffer(data, dtype="<i8").astype(np.int64)

    def keep_parcel(self, name: str, data: bytes) -> None:
        """Keep a parcel as it leaves."""
        write_durably(self.folder / f"{name}.parcel", data)

    def parcel(self, name: str) -> bytes | None:
        """Return a parcel as it left, or None where it did not."""
        path = self.folder / f"{name}.parcel"
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, start: int, rows: NDArray[np.uint8]) -> None:
        """Write rows into a list's file, durably; what was there beyond is left.

        Args:
            name: Of the file.
            start: First row.
            rows: uint8, shape (rows, width).

        Raises:
            FileFault: They cannot be written.
        """
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.seek(start * rows.shape[1])
                file.write(np.ascontiguousarray(rows).tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileFault(Fault(str(path), f"cannot be written ({error.strerror})", "free some space")) from None

    def write_all(self, name: str, pieces: Iterable[NDArray[np.uint8]]) -> int:
        """Write pieces one after another; return how many rows there are."""
        rows = 0
        for piece in pieces:
            self.write(name, rows, piece)
            rows += len(piece)
        return rows

    def read(self, name: str, width: int) -> NDArray[np.uint8]:
        """Return a list's file as a memory map, shape (rows, width).

        Raises:
            FileFault: It is missing, or ends within a row.
        """
        path = self._path(name)
        try:
            whole = np.memmap(path, dtype=np.uint8, mode="r")
            return whole.reshape(-1, width)
        except (OSError, ValueError):
            raise FileFault(
                Fault(str(path), "is missing or cut off", "the match cannot go on: ask for a new epoch")
            ) from None

    def remove(self, name: str) -> None:
        """Remove a list's file."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.points"

    def _key(self) -> bytes:
        return seal_key(self._workspace.root / "keys" / "matches.key")


def kept_matching(workspace: Workspace) -> list[str]:
    """Return the digests of plans whose matches are going on here."""
    folder = workspace.root / "matches"
    found = sorted(f"sha256:{one.name}" for one in folder.iterdir()) if folder.is_dir() else []
    return [plan for plan in found if MatchStore(workspace, plan).ended() is None]


def drop_matches(workspace: Workspace) -> None:
    """Destroy every match that is going on here: none of them can go on, nor be begun again under its plan."""
    for plan in kept_matching(workspace):
        MatchStore(workspace, plan).drop()
