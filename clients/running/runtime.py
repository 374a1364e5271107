"""Where a partner's SuperNode and its worker meet: a loopback port and a secret, made anew at every start."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.durable import write_durably

__all__ = ["Meeting", "announce", "meeting"]

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
