"""Partners in processes of their own, which die, hold on, or find the disk full where a test says.

Processes come from a server that has imported everything once, so that each costs little more than a fork.
"""

import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

from coterie.clients import charging, measuring, outbox
from coterie.clients import node as node_module
from coterie.clients import work as work_module
from coterie.privacy import durable, ledger
from coterie.privacy.errors import CoterieError
from coterie.privacy.randomness import SeededSource, Stream
from coterie.privacy.release import release_digest
from coterie.privacy.training import optimizer
from coterie.tests.clients.federation import Federation

_context = multiprocessing.get_context("forkserver")
# The server does not know pytest's path: what is installed is named here, this module is read by each process.
_context.set_forkserver_preload(
    ["coterie.clients.app", "coterie.server.coordinator", "coterie.simulations.partners", "dp_accounting.rdp"]
)

WATCHED = {
    module.__file__ for module in (node_module, work_module, charging, outbox, measuring, durable, ledger, optimizer)
}


class Process:
    """A process and what it said before its end."""

    def __init__(self, work, *args) -> None:
        self.pipe, there = _context.Pipe()
        self._process = _context.Process(target=work, args=(*args, there))
        self._process.start()
        there.close()

    def heard(self) -> list:
        """Everything it says until it ends."""
        said = []
        try:
            while True:
                said.append(self.pipe.recv())
        except (EOFError, ConnectionResetError):
            self._process.join(60)
            return said

    def ended(self) -> int | None:
        return self._process.exitcode


class Telling(SeededSource):
    """Says once that randomness was drawn for a charge; drawing rows is not that."""

    def __init__(self, pipe) -> None:
        super().__init__(b"tests")
        self._pipe = pipe

    def stream(self, label: str) -> Stream:
        stream = super().stream(label)
        if "/rows/" not in label:
            bits, pipe, told = stream.bits, self._pipe, []

            def telling(count: int) -> bytes:
                if not told:
                    pipe.send("drawn")
                    told.append(True)
                return bits(count)

            stream.bits = telling
        return stream


def work(root: Path, plan, kind: str, line: int | None, pipe) -> None:
    """Do one step, and die before the `line`-th line of the code that matters; say the lines when None."""
    federation = Federation(root, plan)
    federation.random = Telling(pipe)
    passed = 0

    def trace(frame, event, arg):
        nonlocal passed
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            passed += 1
            if passed == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    with federation.node() as node:
        sys.settrace(trace)
        release = getattr(node, kind)(federation.task())
        pipe.send(release_digest(release))
        sys.settrace(None)
    if line is None:
        pipe.send(passed)


def hold(root: Path, plan, pipe) -> None:
    """Hold a workspace until told to let go."""
    with Federation(root, plan).node():
        pipe.send("held")
        pipe.recv()


def with_little_disk(root: Path, plan, kind: str, most: int, pipe) -> None:
    """Do one step where no file may grow beyond `most` bytes."""
    federation = Federation(root, plan)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with federation.node() as node:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        try:
            pipe.send(release_digest(getattr(node, kind)(federation.task())))
        except CoterieError as error:
            pipe.send((type(error).__name__, str(error)))
