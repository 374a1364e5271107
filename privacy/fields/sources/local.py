"""Keys in a folder, one file of 32 random bytes for each epoch: in the workspace, or on something mounted beside it.

Format: `docs/formats/keys.md`.
"""

import secrets
from pathlib import Path
from typing import Literal

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES
from coterie.privacy.fields.sources.held import HeldKeys, not_there
from coterie.privacy.fields.sources.keyfolder import KeyFolder, read_secret
from coterie.privacy.fields.wiping import wipe, wiped

__all__ = ["LocalKeys"]

_FIRST = "0001"
# A folder in the workspace is its owner's alone. What mounts secrets often lets others list their names; the files are
# closed all the same, and nobody else may exchange them.
_REFUSED = {"file": 0o077, "mount": 0o022}


class LocalKeys(HeldKeys):
    """Key files `0001.key`, `0002.key` and so on.

    Args:
        folder: Where they lie.
        kind: "file" inside the workspace, "mount" outside of it; a mount may be read-only.

    Leaks:
        Who reads the folder of kind "file" with the workspace, or a backup of both, opens the vault.
    """

    def __init__(self, folder: Path, *, kind: Literal["file", "mount"] = "file") -> None:
        super().__init__()
        self.kind, self.apart = kind, kind == "mount"
        self._files = KeyFolder(folder, ".key", _REFUSED[kind])

    @staticmethod
    def create(folder: Path, *, kind: Literal["file", "mount"] = "file") -> "LocalKeys":
        """Return the source of a folder, with a first key where it has none.

        Args:
            folder: Made where it is missing, but for a mount: without its medium, a mount is an empty place.
            kind: As in the class.

        Raises:
            KeyFault: The folder is missing, lets others in, or cannot be written.
        """
        source = LocalKeys(folder, kind=kind)
        if kind == "file":
            source._files.make()
        if not source._files.names():
            source._add(_FIRST)
        return source

    def _names(self) -> tuple[str, ...]:
        names = self._files.names()
        if not names:
            fix = "mount or restore it; where nothing is sealed yet, make a first key"
            raise KeyFault(Fault(str(self._files.folder), "holds no key", fix))
        return names

    def _key(self, epoch: str) -> bytearray:
        path = self._files.path(epoch)
        if epoch not in self._files.names():
            raise not_there(epoch)
        key = read_secret(path, most=KEY_BYTES)
        if len(key) != KEY_BYTES:
            wipe([key])
            raise KeyFault(Fault(str(path), f"must hold {KEY_BYTES} bytes", "restore it, or destroy its epoch"))
        return key

    def _make(self, newest: str) -> None:
        self._add(self._files.next(newest))

    def _add(self, epoch: str) -> None:
        name = self._files.path(epoch).name
        fix = f"put {KEY_BYTES} random bytes there, as {name} with mode 600, and start again; or make it writable"
        with wiped([bytearray(secrets.token_bytes(KEY_BYTES))]) as (key,):
            self._files.add(epoch, key, fix=fix)

    def _destroy(self, epoch: str) -> None:
        self._files.shred(epoch)
