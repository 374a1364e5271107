"""One cell: its keys, what is in it, and how it is written (`docs/formats/cells.md`).

From the key of a column two things are derived for each kind of cell, by HKDF-SHA256 (RFC 5869) under labels of their
own: the cipher's key, and the 16 bytes of the key's *id*, which stands in every cell and is compared before anything is
opened. The id is a commitment to the key, which AES-GCM and AES-SIV lack: without it one ciphertext can be made that
opens under two keys (Albertini, Duong, Gueron, Kölbl, Luykx and Schmieg, "How to Abuse and Fix Authenticated Encryption
Without Key Commitment", USENIX Security 2022).

Guarantees:
    Two keys with one id cost about 2^64 work to find, and another key for the id of a given one 2^128.
"""

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault

__all__ = [
    "ANOTHER_KEY",
    "BUCKET",
    "CHANGED",
    "NOT_A_CELL",
    "body_of",
    "derived",
    "key_id",
    "packed",
    "unpacked",
    "written",
]

BUCKET: Final = 16
"""Bytes that the length of a cell is rounded up to, where nothing else is said."""

NOT_A_CELL: Final = "of another form than a sealed cell of this kind and version"
ANOTHER_KEY: Final = "sealed under another key"
CHANGED: Final = "changed, or of another row, column, data set or key version"

_KEY, _ID = 32, 16
_MISSING, _PRESENT = b"\x00", b"\x01"


def derived(key: bytes | bytearray, label: str, *, size: int) -> bytearray:
    """Return bytes that only the key of the column and the label give (HKDF-SHA256 without salt), for wiping after use.

    Raises:
        KeyFault: The key has not 32 bytes.
    """
    if len(key) != _KEY:
        raise KeyFault(Fault("the key of a column", f"has {_KEY} bytes, not {len(key)}", "give the key that was made"))
    out = bytearray(size)
    HKDF(SHA256(), size, salt=None, info=label.encode()).derive_into(key, out)
    return out


def key_id(key: bytes | bytearray, label: str) -> str:
    """Return the id of a column's key: 22 characters that commit to it and may be seen."""
    return base64.urlsafe_b64encode(derived(key, label, size=_ID)).rstrip(b"=").decode()


def packed(content: bytes | None, bucket: int, *, filling: bytes = b"") -> bytes:
    """Return what is sealed: whether there is a value, the value, and padding (ISO/IEC 7816-4) to full buckets.

    Args:
        content: The value in UTF-8; None where it is missing.
        bucket: Bytes.
        filling: What stands in the place of a missing value.
    """
    plain = (_MISSING + filling if content is None else _PRESENT + content) + b"\x80"
    return plain.ljust(-(-len(plain) // bucket) * bucket, b"\x00")


def unpacked(plain: bytes) -> str | None:
    """Return the value of `packed`, None where it was missing.

    Raises:
        ValueError: It is not of that form; whoever sealed it holds the key and follows other rules.
    """
    stripped = plain.rstrip(b"\x00")
    content, mark = stripped[:-1], stripped[-1:]
    if mark == b"\x80" and content[:1] == _PRESENT:
        return content[1:].decode()
    if mark == b"\x80" and content[:1] == _MISSING:
        return None
    raise ValueError("not of the form of a cell")


def written(prefix: str, identity: str, body: bytes) -> str:
    """Return a cell as text: prefix, key id and body in base64url without padding (RFC 4648, section 5), by dots."""
    return f"{prefix}.{identity}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}"


def body_of(cell: str | None, prefix: str, identity: str) -> bytes | str:
    """Return the sealed bytes of a cell as it is written, or why it is none: `NOT_A_CELL` or `ANOTHER_KEY`.

    Args:
        cell: As `written` writes it.
        prefix: The kind and version that is expected.
        identity: The id of the key that will open it.
    """
    parts = (cell or "").split(".")
    if len(parts) != 3 or parts[0] != prefix or len(parts[1]) != len(identity) or not parts[2].isascii():
        return NOT_A_CELL
    if parts[1] != identity:
        return ANOTHER_KEY
    text = parts[2].encode()
    try:
        body = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return NOT_A_CELL
    # The decoder skips what it does not know, and reads several texts as one: only the text that we would write counts.
    return body if base64.urlsafe_b64encode(body).rstrip(b"=") == text else NOT_A_CELL
