"""One party of a match as a process of its own, asked over its standard input. Needs nothing but Python.

A question and its answer are two pieces each, length first: facts as JSON, and bytes. Whoever measures asks; a party
answers one question at a time, and says at the end what processor time and memory it took.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Answer", "Party", "emails", "parties", "peak", "serve"]

Answer = tuple[Mapping[str, Any], bytes]


def emails(size: int, place: int) -> Iterator[str]:
    """Yield the addresses of a party's customers: the first half are everybody's, the others its own.

    Args:
        size: How many, an even number.
        place: Of the party, from 0.
    """
    own = range(size // 2 + size * (place + 1), size * (place + 2))
    for number in itertools.chain(range(size // 2), own):
        yield f"customer.number{number:09d}@mail.example"


def _write(stream: BinaryIO, facts: Mapping[str, Any], data: bytes) -> None:
    for piece in (json.dumps(facts).encode(), data):
        stream.write(len(piece).to_bytes(8, "big"))
        stream.write(piece)
    stream.flush()


def _read(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    pieces = []
    for _ in range(2):
        length = stream.read(8)
        if len(length) < 8:
            raise EOFError
        pieces.append(stream.read(int.from_bytes(length, "big")))
    return json.loads(pieces[0]), pieces[1]


def peak() -> int:
    """Return the most memory that this process had, in bytes: VmHWM, which starts at 0, as ru_maxrss does not."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def serve(answers: Mapping[str, Callable[..., Answer]]) -> None:
    """Answer questions until there are no more; `cost` is answered here."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever prints must not answer
    while True:
        try:
            facts, data = _read(source)
        except EOFError:
            return
        what = facts.pop("what")
        if what == "cost":
            _write(sink, {"busy": time.process_time(), "peak": peak()}, b"")
        else:
            _write(sink, *answers[what](data, **facts))


class Party:
    """A party that is asked from this process.

    Args:
        command: Starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._turn = threading.Lock()
        self.sent = 0  # bytes that it gave to be relayed

    def ask(self, what: str, data: bytes = b"", **facts: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - as JSON
        """Ask, wait for the answer, and return it."""
        sink, source = self._process.stdin, self._process.stdout
        if sink is None or source is None:
            raise RuntimeError
        with self._turn:
            _write(sink, {"what": what, **facts}, data)
            return _read(source)

    def cost(self) -> dict[str, Any]:
        """Return its processor time in seconds and its peak of memory in bytes, so far."""
        return self.ask("cost")[0]

    def close(self) -> None:
        """End it."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def parties(commands: Sequence[Sequence[str]]) -> Iterator[list[Party]]:
    """Start parties, and end them."""
    found = [Party(command) for command in commands]
    try:
        yield found
    finally:
        for party in found:
            party.close()
