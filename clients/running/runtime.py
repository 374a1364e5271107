"""Where a partner's SuperNode and its worker meet: a loopback port and a secret, made anew at every start.

The worker would have to ask for work all the time, so the SuperNode rings a bell when there is some. The bell is a
datagram without content to a name in the kernel (unix(7), abstract): no file, and whoever else rings it makes the
worker ask once for nothing.
"""

import contextlib
import hashlib
import json
import secrets
import select
import socket
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.durable import write_durably

__all__ = ["Bell", "Meeting", "announce", "meeting", "ring"]

_FILE = "supernode.json"


@dataclass(frozen=True)
class Meeting:
    """Where the SuperNode takes requests for work.

    Args:
        port: On the loopback interface.
        secret: Who has it may ask for tasks; 64 hex digits.
    """

    port: int
    secret: str


def announce(folder: Path, port: int) -> Meeting:
    """Write down where the SuperNode listens, with a fresh secret, readable by its owner alone.

    Args:
        folder: The workspace's `run` folder.
        port: On the loopback interface.
    """
    met = Meeting(port, secrets.token_hex(32))
    folder.mkdir(mode=0o700, exist_ok=True)
    write_durably(folder / _FILE, json.dumps({"port": met.port, "secret": met.secret}).encode())
    return met


def meeting(folder: Path) -> Meeting | None:
    """Return where the SuperNode listens, None while it has not said so."""
    try:
        stored = json.loads((folder / _FILE).read_bytes())
        return Meeting(int(stored["port"]), str(stored["secret"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there yet, or being written: the worker asks again


class Bell:
    """What the worker waits at.

    Args:
        met: Where the SuperNode that rings is met.
    """

    def __init__(self, met: Meeting) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):  # the name is taken: the worker goes by the seconds alone
            self._socket.bind(_name(met))

    def wait(self, seconds: float) -> None:
        """Wait until it rings, at most so many seconds; rings that were not heard yet count as one."""
        if select.select([self._socket], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._socket.recv(1)

    def close(self) -> None:
        """Wait no more."""
        self._socket.close()


def ring(met: Meeting) -> None:
    """Wake the worker, where there is one.

    Args:
        met: Where the SuperNode is met.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
        to.sendto(b"", _name(met))


def _name(met: Meeting) -> bytes:
    return b"\0coterie/" + hashlib.sha256(f"coterie/bell/v1/{met.secret}".encode()).hexdigest().encode()
