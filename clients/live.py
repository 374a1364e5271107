"""The bundle of a workspace in which a node may be at work: nothing is locked, written or changed there.

The ledger is copied into a private folder and the copy is read. While the node has the ledger open, SQLite copies it,
through the index in memory that the node keeps, opened for reading alone. Where nobody has it open there is no such
index, and SQLite would make one: there the files are copied as they are, again where one of them changed meanwhile.
"""

import contextlib
import datetime
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from coterie.clients.export import bundle_of
from coterie.clients.workspace import Workspace
from coterie.privacy import storage
from coterie.privacy.errors import Fault, FileFault, LedgerFault
from coterie.privacy.ledger import Ledger

__all__ = ["live_bundle", "live_stamp"]

_TRIES = 50
_PAUSE = 0.1  # seconds; longer than file systems take to tell two changes apart


def live_bundle(folder: Path, clock: Callable[[], datetime.datetime]) -> bytes:
    """Return the bundle of a workspace as its ledger is now.

    Args:
        folder: The partner's workspace; a node may hold it.
        clock: Returns the time in UTC.

    Raises:
        FileFault: There is no workspace.
        LedgerFault: The ledger is missing, of another version, or would not hold still; or an entry is not in a shape
            that may leave.
    """
    workspace = _workspace(folder)
    with _copied(workspace.ledger) as copy, Ledger(copy, clock) as ledger:
        return b"".join(bundle_of(workspace, ledger, clock()))


def live_stamp(folder: Path) -> tuple[tuple[int, int, int], ...]:
    """Return what tells one state of a ledger's files from another, without opening them.

    Raises:
        FileFault: There is no workspace.
        LedgerFault: There is no ledger.
    """
    path = _workspace(folder).ledger
    try:
        return tuple(_stamps(path).values())
    except _Moved:
        raise LedgerFault(Fault(str(path), "is missing", "restore it")) from None


class _Moved(Exception):
    """A file changed while it was read, or a node came or went."""


def _workspace(folder: Path) -> Workspace:
    if not (folder / "coterie.toml").is_file():
        raise FileFault(Fault(str(folder), "is not a workspace", "give the partner's folder"))
    return Workspace(folder)


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """Copy a ledger as it is at one moment into a folder that is readable by its owner alone, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="coterie-") as folder, storage.faults(path):
        copy = Path(folder) / path.name
        for _ in range(_TRIES):
            with contextlib.suppress(_Moved), _reading(path) as db, contextlib.closing(sqlite3.connect(copy)) as own:
                db.backup(own)
                break
            copy.unlink(missing_ok=True)
        else:
            raise LedgerFault(Fault(str(path), "would not hold still", "try again"))
        with contextlib.closing(sqlite3.connect(copy)) as own:
            version = own.execute("PRAGMA user_version").fetchone()[0]
        if version != storage.VERSION:  # the copy would be carried over, and signed, beside the ledger itself
            raise LedgerFault(Fault(str(path), f"has format {version}", "start the partner's node once"))
        yield copy


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a ledger for reading without a trace.

    Raises:
        _Moved: Try again.
    """
    if not path.is_file():
        raise LedgerFault(Fault(str(path), "is missing", "restore it"))
    if _index(path).exists():
        try:
            with contextlib.closing(_open(path)) as db:
                db.execute("SELECT 1 FROM entries LIMIT 1").fetchone()
                yield db
        except sqlite3.OperationalError as error:
            time.sleep(_PAUSE)
            raise _Moved from error
        return
    with tempfile.TemporaryDirectory(prefix="coterie-") as folder:
        copy = _held_still(path, Path(folder))
        with contextlib.closing(sqlite3.connect(copy)) as db:
            yield db


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&readonly_shm=1", uri=True)


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def _held_still(path: Path, folder: Path) -> Path:
    """Copy the files of a ledger that nobody has open.

    A process must not do this beside a ledger that it opens itself: closing a file ends the locks that it holds there.
    """
    before = _stamps(path)
    if time.time_ns() - max(changed for _, _, changed in before.values()) < _PAUSE * 1e9:
        time.sleep(_PAUSE)  # a change right after the look would not show
        raise _Moved
    try:
        for file in before:
            shutil.copyfile(file, folder / file.name)
    except FileNotFoundError:
        raise _Moved from None
    if _stamps(path) != before or _index(path).exists():
        time.sleep(_PAUSE)
        raise _Moved
    return folder / path.name


def _stamps(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Return inode, size and time of change of a ledger's files."""
    found = {}
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(FileNotFoundError):
            told = file.stat()
            found[file] = (told.st_ino, told.st_size, told.st_mtime_ns)
    if path not in found:
        raise _Moved
    return found
