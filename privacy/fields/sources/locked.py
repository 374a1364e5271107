"""One key under a passphrase: random, and wrapped under what Argon2id makes of the passphrase.

Format: `docs/formats/keys.md`. The passphrase is taken as UTF-8 of its normal form C (Unicode Standard Annex 15), so
that a keyboard that composes its letters and one that does not mean the same.

Guarantees:
    A guess at the passphrase costs one Argon2id with the second recommended option of RFC 9106 section 4 (3 passes, 64
    MiB, 4 lanes, a salt of 128 bits); a changed file cannot ask for more than 1 GiB and 16 passes.
"""

import base64
import dataclasses
import json
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES, unwrap_key, wrap_key
from coterie.privacy.fields.sources.keyfolder import read_secret
from coterie.privacy.fields.wiping import wiped
from coterie.privacy.schema import integer, one_of, parse, text

__all__ = ["lock_key", "normal", "open_key"]

_FORMAT = "coterie/keys/passphrase/v1"
_SALT = 16  # bytes
# RFC 9106 section 4, second recommended option.
_MEMORY, _PASSES, _LANES = 1 << 16, 3, 4  # KiB of memory, and counts
_MOST = 4096  # bytes of a file


@dataclass(frozen=True, kw_only=True)
class _Locked:
    """A wrapped key, with what Argon2id was asked for."""

    format: str = field(metadata=one_of(_FORMAT))
    salt: str = field(metadata=text(24, least=24))
    memory_kib: int = field(metadata=integer(1 << 13, 1 << 20))
    passes: int = field(metadata=integer(1, 16))
    lanes: int = field(metadata=integer(1, 16))
    wrapped: str = field(metadata=text(200))


def lock_key(key: bytearray, epoch: str, passphrase: bytearray) -> bytes:
    """Return the content of the file that keeps an epoch's key.

    Args:
        key: 32 bytes.
        epoch: Its name; the file opens for no other.
        passphrase: As `normal` returns it.
    """
    salt = base64.b64encode(secrets.token_bytes(_SALT)).decode()
    locked = _Locked(format=_FORMAT, salt=salt, memory_kib=_MEMORY, passes=_PASSES, lanes=_LANES, wrapped="")
    with wiped([_derived(locked, passphrase)]) as (under,):
        wrapped = base64.b64encode(wrap_key(under, key, _context(locked, epoch))).decode()
    return canonical(dataclasses.asdict(dataclasses.replace(locked, wrapped=wrapped))) + b"\n"


def open_key(path: Path, epoch: str, passphrase: bytearray) -> bytearray:
    """Return the key that a file keeps, for the caller to wipe.

    Raises:
        KeyFault: The file cannot be read, lets others in, is of another format or asks for too much work; or does not
            open under this passphrase.
    """
    locked, wrapped = _read(path)
    with wiped([_derived(locked, passphrase)]) as (under,):
        try:
            return unwrap_key(under, wrapped, _context(locked, epoch))
        except KeyFault:
            rule = "does not open: another passphrase, or a changed file"
            raise KeyFault(Fault(str(path), rule, "give the passphrase it was made with, or restore it")) from None


def normal(passphrase: str) -> bytearray:
    """Return a passphrase as the bytes that are stretched, for the caller to wipe.

    Raises:
        KeyFault: It is no text that UTF-8 can carry.
    """
    # Python's own error would carry the passphrase.
    if any("\ud800" <= character <= "\udfff" for character in passphrase):
        raise KeyFault(Fault("the passphrase", "must be text", "type it again"))
    return bytearray(unicodedata.normalize("NFC", passphrase).encode())


def _read(path: Path) -> tuple[_Locked, bytes]:
    try:
        table = json.loads(read_secret(path, most=_MOST))
        locked = parse(_Locked, table, place=str(path))
        wrapped = base64.b64decode(locked.wrapped, validate=True)
        if len(base64.b64decode(locked.salt, validate=True)) != _SALT:
            raise ValueError
    except FileFault as refused:
        raise KeyFault(*refused.faults) from None
    except (ValueError, RecursionError):
        raise KeyFault(Fault(str(path), "is not a wrapped key of this format", "restore it")) from None
    return locked, wrapped


def _derived(locked: _Locked, passphrase: bytearray) -> bytearray:
    under = bytearray(KEY_BYTES)
    Argon2id(
        salt=base64.b64decode(locked.salt),
        length=KEY_BYTES,
        iterations=locked.passes,
        lanes=locked.lanes,
        memory_cost=locked.memory_kib,
    ).derive_into(passphrase, under)  # type: ignore[arg-type]  # takes any buffer
    return under


def _context(locked: _Locked, epoch: str) -> bytes:
    return canonical([_FORMAT, epoch, locked.salt, locked.memory_kib, locked.passes, locked.lanes])
