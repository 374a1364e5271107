"""Keeps a few processes alive, and leaves nothing behind when it ends or is killed.

Each child leads a process group of its own and hangs on a leash (`processes/leash.py`): should the supervisor be
killed, the kernel kills the children. A child that ends is started again after a pause that doubles up to a limit;
children that make no sense without each other fall and rise together. What a child prints is kept in a file of bounded
size. Linux alone.
"""

import contextlib
import dataclasses
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.plain import plain
from coterie.processes import leash
from coterie.processes.logs import KeptFile, event

__all__ = ["Child", "Pauses", "State", "Supervisor"]

_TICK = 0.1  # seconds between two looks at the children
_LINE = 16_384  # bytes of a child's output that are kept as one line
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Child:
    """A process to keep alive.

    Args:
        name: For logs and metrics.
        command: Program, looked up along the child's PATH, and its arguments; no secrets.
        env: The whole environment.
        log: File for what it prints; its folder exists.
        grace: Seconds from SIGTERM to SIGKILL.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    grace: float = 10.0


@dataclass(frozen=True)
class Pauses:
    """How long to wait before a fallen child is started again.

    Args:
        first: Seconds after the first fall; each further fall doubles them.
        longest: Seconds, at most.
        calm: Seconds of life after which falls are forgotten.
    """

    first: float = 0.5
    longest: float = 30.0
    calm: float = 60.0

    def after(self, falls: int) -> float:
        """Return the seconds to wait after so many falls in a row, from 1."""
        return float(min(self.longest, self.first * 2.0 ** min(falls - 1, 32)))


@dataclass(frozen=True)
class State:
    """What there is to know of a child.

    Args:
        pid: Its process id; None where it does not run.
        restarts: How often it was started again.
        since: Monotonic seconds when it was last started; None if it never was.
    """

    pid: int | None = None
    restarts: int = 0
    since: float | None = None

    @property
    def running(self) -> bool:
        """Return whether there is a process."""
        return self.pid is not None


class Supervisor:
    """Keeps children alive from `run` until it is told to stop.

    Args:
        children: In the order in which they are started; they are stopped the other way round.
        log: What `json_log` returned.
        monotonic: Returns seconds that never go back.
        together: Names of the children that are started anew with each other.
        pauses: How long to wait before that.

    Raises:
        CoterieError: Two children have one name, or `together` names one that is not there.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        log: logging.Logger,
        monotonic: Callable[[], float],
        together: frozenset[str] = frozenset(),
        pauses: Pauses | None = None,
    ) -> None:
        names = [child.name for child in children]
        if len(set(names)) < len(names) or not together <= set(names):
            fault = Fault("children", "need names of their own, and only these fall together", "correct the names")
            raise CoterieError(fault)
        self._log, self._monotonic, self._pauses = log, monotonic, pauses or Pauses()
        self._kept = [_Kept(child, log, monotonic) for child in children]
        self._bands: list[_Band] = []
        for kept in self._kept:
            if kept.child.name not in together:
                self._bands.append(_Band([kept]))
            elif not any(band.members[0].child.name in together for band in self._bands):
                self._bands.append(_Band([other for other in self._kept if other.child.name in together]))

    def run(self, stop: threading.Event) -> None:
        """Start the children and keep them alive until `stop` is set; then end them all.

        The children are the calling thread's: it must live as long as they shall.
        """
        event(self._log, "supervising", children=[kept.child.name for kept in self._kept])
        try:
            while not stop.is_set():
                for band in self._bands:
                    self._look_after(band)
                stop.wait(_TICK)
        finally:
            self.stop()

    def stop(self) -> None:
        """End every child, the last first: SIGTERM, its grace, SIGKILL for its group; return once all are gone."""
        for kept in reversed(self._kept):
            kept.end()
        event(self._log, "supervised", restarts=sum(kept.state.restarts for kept in self._kept))

    def status(self) -> dict[str, State]:
        """Return what there is to know of each child; may be asked from any thread."""
        return {kept.child.name: kept.state for kept in self._kept}

    def _look_after(self, band: "_Band") -> None:
        """Take one step with children that fall and rise together."""
        if band.up and any(kept.ended() for kept in band.members):
            now = self._monotonic()
            band.falls = 1 if now - band.began >= self._pauses.calm else band.falls + 1
            band.up, band.due = False, now + self._pauses.after(band.falls)
            for kept in reversed(band.members):
                kept.ask()
        if band.up:
            return
        left = [kept for kept in band.members if not kept.gone()]  # each is asked: to be asked clears it away
        if not left and self._monotonic() >= band.due:
            band.up, band.began = True, self._monotonic()
            for kept in band.members:
                kept.start()


@dataclass
class _Band:
    """Children that fall and rise together; most are alone in theirs."""

    members: list["_Kept"]
    up: bool = False
    falls: int = 0
    began: float = 0.0
    due: float = float("-inf")


class _Kept:
    """One child and its process, if it has one."""

    def __init__(self, child: Child, log: logging.Logger, monotonic: Callable[[], float]) -> None:
        self.child, self.state = child, State()
        self._log, self._monotonic = log, monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._kill_at: float | None = None

    def start(self) -> None:
        """Start it; where that fails, it counts as ended."""
        self._kill_at = None
        command = [sys.executable, "-I", "-S", str(leash.__file__), str(os.getpid()), *self.child.command]
        try:
            # Its own group, so that it goes whole, and a terminal's Ctrl-C reaches the supervisor alone.
            self._process = subprocess.Popen(  # noqa: S603 - the command is the operator's own installation
                command,
                env=dict(self.child.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            event(self._log, "not-started", level=logging.ERROR, child=self.child.name, errno=error.errno)
            return
        again = self.state.since is not None
        self.state = State(self._process.pid, self.state.restarts + again, self._monotonic())
        self._reader = threading.Thread(target=_keep_output, args=(self._process.stdout, self.child.log), daemon=True)
        self._reader.start()
        event(self._log, "started", child=self.child.name, pid=self._process.pid, restarts=self.state.restarts)

    def ended(self) -> bool:
        """Return whether it has ended; what it leaves is not cleared away yet."""
        if self._process is None:
            return True
        # Left unreaped: as long as it is, its number is nobody else's, and its group can be killed without doubt.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ask(self) -> None:
        """Ask it and its group to end, and begin its grace."""
        if self._process is not None and self._kill_at is None:
            self._kill_at = self._monotonic() + self.child.grace
            self._signal(signal.SIGTERM)

    def gone(self) -> bool:
        """Return whether nothing is left of it; clear away what ended, and kill what had its grace."""
        if self._process is None:
            return True
        if not self.ended():
            if self._kill_at is None or self._monotonic() < self._kill_at:
                return False
            event(self._log, "killed", level=logging.WARNING, child=self.child.name, grace=self.child.grace)
        self._clear(self._process)
        return True

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.ask()
        wait = threading.Event()
        while not self.gone():
            wait.wait(_TICK / 2)

    def _clear(self, process: subprocess.Popen[bytes]) -> None:
        self._signal(signal.SIGKILL)
        code = process.wait()
        self._process, self.state = None, dataclasses.replace(self.state, pid=None)
        if self._reader is not None:
            self._reader.join(timeout=1.0)  # one that left the group may hold the pipe open
        event(self._log, "ended", child=self.child.name, code=code)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return


def _keep_output(pipe: IO[bytes], path: Path) -> None:
    """Keep what a child prints until it ends; should the disk be full, lines are lost and the child goes on."""
    file: KeptFile | None = None
    with contextlib.suppress(OSError):
        file = KeptFile(path)
    with pipe:
        while line := pipe.readline(_LINE):
            if file is not None:
                text = plain(_COLOURS.sub("", line.decode("utf-8", errors="replace").rstrip("\r\n")))
                file.handle(logging.LogRecord("child", logging.INFO, "", 0, "%s", (text,), None))
    if file is not None:
        file.close()
