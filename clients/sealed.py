"""Small secrets of a workspace that must outlive a process, sealed: a copy of the file alone is worth nothing.

AES-256-GCM (NIST SP 800-38D) under a key of the workspace that lies apart, with a random nonce: far fewer than 2**32
seals are made under one key (section 8.3 there). The file's purpose is bound in as associated data.
"""

import contextlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coterie.privacy.durable import sync_folder, write_durably
from coterie.privacy.errors import Fault, FileFault

__all__ = ["read_sealed", "seal_key", "write_sealed"]

_KEY, _NONCE = 32, 12


def seal_key(path: Path) -> bytes:
    """Return the key in a file, made where there is none; to be asked by who holds the workspace's lock.

    Raises:
        FileFault: The file holds something else, or cannot be written.

    Guarantees:
        Killed at any moment, the file holds a whole key or is not there; a file that is there is never written over.
    """
    try:
        # What a kill left beside is a key that was never used, or a second name of the one that is.
        path.with_name(path.name + ".new").unlink(missing_ok=True)
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        fix = "free some space or check its rights"
        raise FileFault(Fault(str(path), f"cannot be made or read ({error.strerror})", fix)) from None
    if len(key) != _KEY:
        raise FileFault(Fault(str(path), f"must hold {_KEY} bytes", "remove it; open rounds are then refused"))
    return key


def _make_key(path: Path) -> None:
    beside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_KEY))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # a key that came first is the key
        os.link(beside, path)
    beside.unlink()
    sync_folder(path.parent)


def write_sealed(path: Path, key: bytes, data: bytes) -> None:
    """Seal data into a file, whole or not at all.

    Raises:
        FileFault: It cannot be written.
    """
    nonce = secrets.token_bytes(_NONCE)
    write_durably(path, nonce + AESGCM(key).encrypt(nonce, data, path.name.encode()))


def read_sealed(path: Path, key: bytes) -> bytes | None:
    """Return what was sealed into a file, or None where there is no file.

    Raises:
        FileFault: It was changed, or was sealed under another key or name.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], path.name.encode())
    except (InvalidTag, ValueError):
        raise FileFault(Fault(str(path), "is damaged, or sealed under another key", "remove it")) from None
