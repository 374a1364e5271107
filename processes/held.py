"""Who runs in a folder: one process at a time, known by a lock that dies with it.

`lock` is held for as long as the process lives (flock(2): the kernel lets go whatever way it ends). `process.json`
beside it says who that is; of a dead process it is a leftover that nobody believes. A process number may be another's
by now, so a record also has the moment at which the kernel started the process (proc(5), field 22 of stat).
"""

import datetime
import fcntl
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault

__all__ = ["Hold", "Holder", "ask_to_stop", "hold", "running"]

_PATIENCE = (
    1.0  # seconds; `running` holds the lock for a moment, and a record is written a moment after the lock is had
)
_AGAIN = 0.02  # seconds between two tries


@dataclass(frozen=True)
class Holder:
    """Who runs in a folder.

    Args:
        pid: Process id.
        started: When it took the folder, UTC.
        ports: What it listens on, by name.
        born: When the kernel started it, in ticks since the machine's start.
    """

    pid: int
    started: datetime.datetime
    ports: Mapping[str, int] = field(default_factory=dict)
    born: int = 0


@dataclass(frozen=True)
class Hold:
    """A folder held by this process.

    Args:
        folder: The folder.
        started: When it was taken.
    """

    folder: Path
    started: datetime.datetime

    def tell(self, ports: Mapping[str, int]) -> None:
        """Say what this process listens on, for `running` to read.

        Raises:
            FileFault: It cannot be written.
        """
        born = _born(os.getpid())
        record = {"pid": os.getpid(), "started": self.started.isoformat(), "ports": dict(ports), "born": born}
        write_durably(self.folder / "process.json", json.dumps(record).encode())


@contextmanager
def hold(folder: Path, *, clock: Callable[[], datetime.datetime]) -> Iterator[Hold]:
    """Hold a folder until the block ends or this process does.

    Args:
        folder: Such as a workspace's `run`; made if missing.
        clock: Returns the time in UTC.

    Raises:
        CoterieError: Another process holds it, or it cannot be written.
    """
    lock = _open_lock(folder)
    try:
        if not _lock(lock, fcntl.LOCK_EX, _PATIENCE):
            fault = Fault(str(folder), "is held by a process that runs already", "stop that one first")
            raise CoterieError(fault)
        held = Hold(folder, clock())
        try:
            held.tell({})
            yield held
        finally:
            (folder / "process.json").unlink(missing_ok=True)
    finally:
        os.close(lock)


def running(folder: Path) -> Holder | None:
    """Return who runs in a folder, or None.

    Raises:
        CoterieError: Somebody holds the folder and does not say who it is, or it cannot be read.
    """
    if not (folder / "lock").exists():
        return None
    end = time.monotonic() + _PATIENCE
    with closing(_Descriptor(_open_lock(folder))) as lock:
        while not _lock(lock.number, fcntl.LOCK_SH, 0.0):
            holder = _read(folder / "process.json")
            if holder is not None and _born(holder.pid) == holder.born:
                return holder
            if time.monotonic() > end:
                fault = Fault(str(folder), "is held by a process that is not named in it", "look for it with fuser")
                raise CoterieError(fault)
            threading.Event().wait(_AGAIN)
    return None


def ask_to_stop(folder: Path, seconds: float) -> Holder | None:
    """Ask whoever runs in a folder to end, and wait until it has.

    Args:
        folder: The folder that it holds.
        seconds: How long to wait.

    Returns:
        Who it was; None where nobody ran.

    Raises:
        CoterieError: It may not be asked by this user, or it has not ended in time.
    """
    holder = running(folder)
    if holder is None:
        return None
    place = f"process {holder.pid}"
    try:
        process = _Descriptor(os.pidfd_open(holder.pid))
    except ProcessLookupError:
        return holder
    with closing(process):
        if _born(holder.pid) != holder.born:  # it ended since, and its number is another's
            return holder
        try:
            signal.pidfd_send_signal(process.number, signal.SIGTERM)
        except ProcessLookupError:
            return holder
        except PermissionError:
            fault = Fault(place, "is another user's", "stop it as that user, or by the service manager")
            raise CoterieError(fault) from None
        if not select.select([process.number], [], [], seconds)[0]:
            raise CoterieError(
                Fault(place, f"has not ended within {seconds:g} seconds", "read its log, or wait longer")
            )
    return holder


@dataclass(frozen=True)
class _Descriptor:
    """A file descriptor, to be closed."""

    number: int

    def close(self) -> None:
        os.close(self.number)


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fault = Fault(str(folder), f"cannot be used ({error.strerror})", "check its rights and the disk")
        raise CoterieError(fault) from None


def _lock(descriptor: int, kind: int, patience: float) -> bool:
    """Return whether the lock could be had."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            threading.Event().wait(_AGAIN)
        else:
            return True


def _read(path: Path) -> Holder | None:
    try:
        record = json.loads(path.read_bytes())
        ports = {str(name): int(port) for name, port in record["ports"].items()}
        started = datetime.datetime.fromisoformat(record["started"])
        return Holder(int(record["pid"]), started, ports, int(record["born"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _born(pid: int) -> int | None:
    """Return when the kernel started a process; None where there is none, or a zombie."""
    try:
        # The program's name stands in brackets and may have any character.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
