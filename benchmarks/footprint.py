"""What processes cost while they run: seconds of processor time, memory, bytes between machines, files on disk."""

import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

NAMES = {
    "coterie.clients.running.supernode": "SuperNode",
    "coterie.clients.running.worker": "worker",
    "coterie.server.running.gateway": "gateway",
    "flower-supernode": "SuperNode",
    "flower-superlink": "SuperLink",
    "flower-superexec": "executor",
    "flwr-serverapp": "server's app",
    "flwr-clientapp": "client's app",
    "partner": "partner's supervisor",
    "coordinator": "coordinator's supervisor",
}
"""What stands in a process's command line, and what it is called; the first that fits counts."""


@dataclass(frozen=True)
class Used:
    """What a process used.

    Args:
        name: What it is.
        cpu: Seconds of processor time, its own.
        reaped: Seconds of the processes that it started and that are gone.
        memory: Bytes that are resident.
        shared: Of those, bytes of files and shared memory.
    """

    name: str
    cpu: float
    reaped: float
    memory: int
    shared: int


def used(*roots: int) -> dict[int, Used]:
    """Return what processes and all that they started use, by process id."""
    parents: dict[int, int] = {}
    stats: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                stats[int(entry.name)], parents[int(entry.name)] = fields, int(fields[1])
    found = {}
    for pid, fields in stats.items():
        if _within(pid, parents, roots):
            with contextlib.suppress(OSError):
                times = [int(field) / _TICKS for field in fields[11:15]]
                pages = (Path("/proc") / str(pid) / "statm").read_text().split()
                memory, shared = int(pages[1]) * _PAGE, int(pages[2]) * _PAGE
                found[pid] = Used(_name(pid), times[0] + times[1], times[2] + times[3], memory, shared)
    return found


def _within(pid: int, parents: Mapping[int, int], roots: tuple[int, ...]) -> bool:
    while pid not in roots:
        if (pid := parents.get(pid, 0)) == 0:
            return False
    return True


def _name(pid: int) -> str:
    words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    plain = [word.rsplit("/", 1)[-1] for word in words]
    return next((name for word, name in NAMES.items() if word in plain), "other")


def spent(before: Mapping[int, Used], after: Mapping[int, Used]) -> Counter[str]:
    """Return the seconds of processor time between two looks, by what the processes are."""
    seconds: Counter[str] = Counter()
    for pid, use in after.items():
        was = before.get(pid)
        seconds[use.name] += use.cpu - (was.cpu if was else 0.0)
        if use.reaped - (was.reaped if was else 0.0) > 0:
            seconds[f"what the {use.name} started and ended"] += use.reaped - (was.reaped if was else 0.0)
    return seconds


class Relay:
    """Passes connections on to another port of this machine, and counts their bytes."""

    def __init__(self, port: int, to: int) -> None:
        self.up = self.down = self.connections = 0
        self._to = to
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", port))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and end those there are."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()  # the other end is not up yet; whoever asked asks again
                continue
            self.connections += 1
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(one)
            threading.Thread(target=self._pass, args=(near, far), kwargs={"up": True}, daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near), kwargs={"up": False}, daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                with self._lock:
                    self.up += len(data) if up else 0
                    self.down += 0 if up else len(data)
                to.sendall(data)
        for one in (source, to):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


@contextmanager
def relayed(port: int, to: int) -> Iterator[Relay]:
    """Pass connections on until the block ends."""
    relay = Relay(port, to)
    try:
        yield relay
    finally:
        relay.close()


def on_disk(folder: Path) -> tuple[int, int]:
    """Return how many files lie under a folder, and their bytes; what vanishes meanwhile does not count."""
    sizes = []
    for path in folder.rglob("*") if folder.is_dir() else [folder]:
        with contextlib.suppress(OSError):
            if path.is_file():
                sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)
