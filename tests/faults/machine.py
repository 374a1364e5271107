"""The processes of a federation, found in /proc by what they run; and a clock that can be moved under one of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAMS = {
    "worker": "clients.running.worker",
    "supernode": "clients.running.supernode",
    "gateway": "server.running.gateway",
    "superlink": "flower-superlink",
    "superexec": "flower-superexec",
    "serverapp": "flwr-serverapp",
}
"""Parts of the command lines by which processes are known."""

MOVED = """
import datetime, os, pathlib, time

_place = os.environ.get("FAULTS_CLOCK")
if _place:
    _real, _time = datetime.datetime, time.time

    def _seconds():
        try:
            return float(pathlib.Path(_place).read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    class _Meta(type):
        def __instancecheck__(cls, other):
            return isinstance(other, _real)

        def __subclasscheck__(cls, other):
            return issubclass(other, _real)

    class datetime_(_real, metaclass=_Meta):
        __slots__ = ()

        @classmethod
        def now(cls, tz=None):
            return _real.now(tz) + datetime.timedelta(seconds=_seconds())

    datetime_.__name__ = datetime_.__qualname__ = "datetime"
    datetime.datetime = datetime_
    time.time = lambda: _time() + _seconds()
if os.environ.get("FAULTS_OLD"):
    import coterie.clients.bundle as _bundle

    _bundle._PROJECT = _bundle._PROJECT.replace('version = "1.0.0"', 'version = "0.9.0"')
"""
"""A sitecustomize.py: moves the clock of a process by the seconds in a file, or makes its coterie an older one."""


def _stat(pid: int) -> tuple[str, int] | None:
    """Return a process's state and parent, None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return fields[0], int(fields[1])


def under(root: int) -> dict[int, str]:
    """Return the command lines of the living processes that come from one, by number."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None and found[0] != "Z":
            parents[int(entry.name)] = found[1]
    mine, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in mine} - mine
        mine, grown = mine | more, bool(more)
    lines = {}
    for pid in sorted(mine - {root}):
        try:
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return lines


class Service:
    """`coterie partner start` or `coterie coordinator start` of one folder, as an init system would keep it.

    Args:
        door: "partner" or "coordinator".
        folder: The workspace, or the coordinator's folder.
        within: Put before the command.
        environment: Added to this process's own.
    """

    def __init__(
        self, door: str, folder: Path, within: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ):
        self._command = [*within, sys.executable, "-m", "coterie.cli.main", door, "start", str(folder)]
        self._folder, self._environment = folder, dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Start it; it must not run."""
        environment = {**os.environ, **self._environment, **(extra or {})}
        (self._folder / "logs").mkdir(mode=0o700, exist_ok=True)
        with (self._folder.parent / f"{self._folder.name}.out").open("ab") as output:
            self.process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=environment, process_group=0
            )

    def alive(self) -> bool:
        """Return whether its supervisor runs."""
        return self.process is not None and self.process.poll() is None

    def find(self, program: str) -> int | None:
        """Return the number of one of its processes, None where there is none now."""
        if self.process is None:
            return None
        found = [pid for pid, line in under(self.process.pid).items() if PROGRAMS[program] in line]
        return found[-1] if found else None

    def signal(self, program: str, number: signal.Signals, within: float = 60.0) -> int:
        """Signal one of its processes, once there is one.

        Args:
            program: A key of `PROGRAMS`.
            number: The signal.
            within: Seconds until there must be one.
        """
        end = time.monotonic() + within
        while time.monotonic() < end:
            pid = self.find(program)
            if pid is not None:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
                return pid
            time.sleep(0.05)
        raise RuntimeError(f"{self._folder.name} has no {program}")

    def kill(self) -> None:
        """Kill its supervisor as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, seconds: float = 60.0) -> None:
        """Ask it to end, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
