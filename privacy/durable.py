"""Writing files so that a crash leaves the old content or the new, never a mixture."""

import contextlib
import os
from pathlib import Path

from coterie.privacy.errors import Fault, FileFault

__all__ = ["sync_folder", "write_durably"]


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, owner-readable, and force it to disk.

    Raises:
        FileFault: It cannot be written; what was there before is untouched.
    """
    beside = path.with_name(path.name + ".new")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # an earlier crash may have left a file of other rights
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise FileFault(
            Fault(str(path), f"cannot be written ({error.strerror})", "free some space or check its rights")
        ) from None


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
