"""A folder that keeps one small secret file for each epoch, and secret files by themselves.

Rules this module enforces:
- a secret file is a plain file that nobody but its owner may read or write;
- the folder of such files lets nobody else in;
- a new file is whole or not there, durable, and never takes the place of another;
- a file that goes is overwritten before its name goes, and gone from disk when the call returns.

Leaks:
    What a disk keeps of an overwritten file (copies of a journal, of a snapshot, of a flash memory's spare blocks), and
    what a backup took: destroying a file proves nothing about those.
"""

import contextlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault

__all__ = ["KeyFolder", "read_secret"]

_OTHERS = 0o077
_NUMBER = re.compile(r"[0-9]{4}", re.ASCII)
_LAST = 9999


@dataclass(frozen=True)
class KeyFolder:
    """Files `0001` and up, one for each epoch.

    Args:
        folder: Where they lie.
        suffix: How their names end, e.g. ".key".
        refused: Rights of the folder's group and others that are refused.
    """

    folder: Path
    suffix: str
    refused: int = _OTHERS

    def make(self) -> None:
        """Make the folder, for its owner alone; one that is there is left as it is.

        Raises:
            KeyFault: It cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        except OSError as error:
            rule = f"cannot be made ({error.strerror})"
            raise KeyFault(Fault(str(self.folder), rule, "check its parent and its rights")) from None

    def names(self) -> tuple[str, ...]:
        """Return the epochs that have a file, oldest first.

        Raises:
            KeyFault: The folder is not there, or lets others in.
        """
        try:
            mode = self.folder.stat().st_mode
            found = sorted(path.stem for path in self.folder.iterdir() if path.suffix == self.suffix)
        except OSError as error:
            fix = "restore it, or mount it, or correct [keys] of coterie.toml"
            raise KeyFault(Fault(str(self.folder), f"cannot be read ({error.strerror})", fix)) from None
        if mode & self.refused:
            rule = "lets others than its owner at the keys in it"
            raise KeyFault(Fault(str(self.folder), rule, f"run: chmod go-rwx {self.folder}"))
        return tuple(name for name in found if _NUMBER.fullmatch(name))

    def next(self, epoch: str) -> str:
        """Return the name after an epoch's; it was never used, because the newest one is never destroyed.

        Raises:
            KeyFault: There is none.
        """
        number = int(epoch) + 1
        if number > _LAST:
            raise KeyFault(Fault(str(self.folder), f"has room for {_LAST} epochs", "move to another key source"))
        return f"{number:04d}"

    def path(self, epoch: str) -> Path:
        """Return an epoch's file.

        Raises:
            KeyFault: No epoch of a folder has this name.
        """
        # The name may be a manifest's word, and must not ask for another file.
        if not _NUMBER.fullmatch(epoch):
            raise KeyFault(Fault("an epoch", "is a number of four digits in a folder of keys", "restore the manifest"))
        return self.folder / (epoch + self.suffix)

    def add(self, epoch: str, data: bytes | bytearray, *, fix: str) -> None:
        """Write an epoch's file, whole and durable, or leave things as they are.

        Args:
            epoch: Its name.
            data: What the file holds.
            fix: What to do where it cannot be written.

        Raises:
            KeyFault: It is there already, or the folder cannot be written.
        """
        path = self.path(epoch)
        beside = path.with_name(path.name + ".new")
        try:
            # What a kill left beside was never used, or is a second name of a file that is: its bytes stay as they are.
            beside.unlink(missing_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())
            os.link(beside, path)
            beside.unlink()
            sync_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise KeyFault(Fault(str(path), f"cannot be made ({error.strerror})", fix)) from None

    def shred(self, epoch: str) -> None:
        """Overwrite an epoch's file, remove it, and force that to disk.

        Raises:
            KeyFault: It cannot be changed.
        """
        path = self.path(epoch)
        try:
            for name in (path.with_name(path.name + ".new"), path):
                with contextlib.suppress(FileNotFoundError):
                    _overwrite(name)
                    name.unlink()
            sync_folder(self.folder)
        except OSError as error:
            fix = f"remove {path} by hand, where it was made"
            raise KeyFault(Fault(str(path), f"cannot be destroyed ({error.strerror})", fix)) from None


def read_secret(path: Path, *, most: int) -> bytearray:
    """Return a secret file, for the caller to wipe.

    Args:
        path: The file.
        most: Greatest length, in bytes.

    Raises:
        KeyFault: It cannot be read, is not a plain file, may be read or written by others, or is longer.
    """
    try:
        # Not to wait for a pipe's other end; of a plain file it changes nothing.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFault(Fault(str(path), "is not a plain file", "correct the path in [keys] of coterie.toml"))
            if mode & _OTHERS:
                rule = "may be read or written by others than its owner"
                raise KeyFault(Fault(str(path), rule, f"run: chmod 600 {path}"))
            data = bytearray(most + 1)
            size = file.readinto(data) or 0
    except OSError as error:
        fix = "restore it, or mount it, or correct [keys] of coterie.toml"
        raise KeyFault(Fault(str(path), f"cannot be read ({error.strerror})", fix)) from None
    if size > most:
        data[:] = bytes(len(data))
        raise KeyFault(Fault(str(path), f"is longer than {most} bytes", "check that it is the right file"))
    del data[size:]
    return data


def _overwrite(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb", buffering=0) as file:
        # One byte more than there was: if the machine stops before the name is gone, it does not pass for a key.
        file.write(secrets.token_bytes(os.fstat(file.fileno()).st_size + 1))
        os.fsync(file.fileno())
