"""Cobblestone-256 read and written from its text (c2sp.org/chunked-encryption), without the library under test.

Its hash is SHA-512, its AEAD AES-256-GCM. HKDF-Expand is RFC 5869 section 2.3 on `hmac`; AES-GCM is PyCryptodome's.
Slow, and whole files in memory.
"""

import hashlib
import hmac
import os

from Crypto.Cipher import AES

CHUNK, TAG, SALT, COMMITMENT = 16 * 1024, 16, 24, 32
HEADER = SALT + COMMITMENT
WHOLE = CHUNK + TAG


class Damaged(Exception):
    pass


def expand(key, info, size):
    out, block, counter = b"", b"", 1
    while len(out) < size:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha512).digest()
        out, counter = out + block, counter + 1
    return out[:size]


def secrets(key, salt, context):
    """Return AES key, base nonce and commitment ("Key derivation")."""
    out = expand(key, b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + context, 32 + 12 + COMMITMENT)
    return out[:32], out[32:44], out[44:]


def cipher(key, base, number):
    """Return the AEAD of one chunk ("AEAD usage"): the nonce is the base nonce XOR the number, big-endian."""
    nonce = int.from_bytes(base, "big") ^ number
    return AES.new(key, AES.MODE_GCM, nonce=nonce.to_bytes(12, "big"))


def seal(key, context, message, *, salt=None):
    salt = os.urandom(SALT) if salt is None else salt
    derived, base, commitment = secrets(key, salt, context)
    parts = [salt, commitment]
    # "The last chunk being always shorter": a message of full chunks ends with an empty one.
    for number in range(len(message) // CHUNK + 1):
        parts += cipher(derived, base, number).encrypt_and_digest(message[number * CHUNK :][:CHUNK])
    return b"".join(parts)


def open_(key, context, sealed):
    if len(sealed) < HEADER:
        raise Damaged("header")
    salt, commitment, body = sealed[:SALT], sealed[SALT:HEADER], sealed[HEADER:]
    derived, base, wanted = secrets(key, salt, context)
    if commitment != wanted:
        raise Damaged("commitment")
    parts = [body[start : start + WHOLE] for start in range(0, len(body), WHOLE)]
    if not parts or not TAG <= len(parts[-1]) < WHOLE:
        raise Damaged("length")
    try:
        return b"".join(
            cipher(derived, base, number).decrypt_and_verify(part[:-TAG], part[-TAG:])
            for number, part in enumerate(parts)
        )
    except ValueError:
        raise Damaged("chunk") from None
