"""Sealed cells read and written from `docs/formats/cells.md` alone, with PyCryptodome and the standard library.

Shares no code with the package: its own HKDF on `hmac`, its own JSON, another AES.
"""

import base64
import hashlib
import hmac
import json

from Crypto.Cipher import AES

KINDS = {"v1": "coterie/cells/v1/randomised", "d1": "coterie/cells/v1/searchable"}


class Unreadable(Exception):
    pass


def hkdf(key, info, size):
    """HKDF-SHA256 with no salt: RFC 5869, sections 2.2 and 2.3."""
    secret = hmac.new(bytes(32), key, hashlib.sha256).digest()
    out, block, counter = b"", b"", 1
    while len(out) < size:
        block = hmac.new(secret, block + info.encode() + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:size]


def base64url(data):
    return base64.b64encode(data, altchars=b"-_").decode().rstrip("=")


def identity(key, prefix):
    return base64url(hkdf(key, KINDS[prefix] + "/id", 16))


def cipher(key, prefix, bound, nonce):
    secret = hkdf(key, KINDS[prefix] + "/key", 32 if prefix == "v1" else 64)
    aes = AES.new(secret, AES.MODE_GCM, nonce=nonce) if prefix == "v1" else AES.new(secret, AES.MODE_SIV)
    # The names of the tests are plain ASCII, for which this is RFC 8785 too.
    aes.update(json.dumps([KINDS[prefix], *bound], separators=(",", ":")).encode())
    return aes


def plain_of(value, bucket, filling=b""):
    plain = (b"\0" + filling if value is None else b"\1" + value.encode()) + b"\x80"
    while len(plain) % bucket:
        plain += b"\0"
    return plain


def value_of(plain):
    end = plain.rindex(b"\x80")
    if any(plain[end + 1 :]) or plain[0] > 1:
        raise Unreadable("padding")
    return plain[1:end].decode() if plain[0] else None


def seal(key, bound, value, *, nonce, bucket=16):
    """Seal a randomised cell; `bound` is [data set, column, row key, key version]."""
    sealed, tag = cipher(key, "v1", bound, nonce).encrypt_and_digest(plain_of(value, bucket))
    return f"v1.{identity(key, 'v1')}.{base64url(nonce + sealed + tag)}"


def seal_searchable(key, bound, value, *, filling=b"", bucket=16):
    """Seal a searchable cell; `bound` is [data set, column, key version]."""
    sealed, tag = cipher(key, "d1", bound, None).encrypt_and_digest(plain_of(value, bucket, filling))
    return f"d1.{identity(key, 'd1')}.{base64url(tag + sealed)}"


def open_(key, bound, cell):
    prefix, name, body = cell.split(".")
    if name != identity(key, prefix):
        raise Unreadable("key")
    data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    try:
        if prefix == "v1":
            return value_of(cipher(key, prefix, bound, data[:12]).decrypt_and_verify(data[12:-16], data[-16:]))
        return value_of(cipher(key, prefix, bound, None).decrypt_and_verify(data[16:], data[:16]))
    except ValueError:
        raise Unreadable("cell") from None
