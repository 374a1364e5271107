"""X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869): how two partners come to a secret, and a secret to keys."""

import functools
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coterie.privacy.canonical import canonical
from coterie.privacy.secagg.errors import blame

__all__ = ["derived", "has_small_order", "public_of", "shared"]

_ANY = X25519PrivateKey.from_private_bytes(bytes(32))  # clamping makes 2**254 of it: a multiple of 8, as every key


def public_of(private: bytes) -> bytes:
    """Return the public key of 32 secret bytes (RFC 7748, section 6.1)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def shared(private: bytes, public: bytes, partner: str) -> bytes:
    """Return the secret shared with a partner (RFC 7748, section 6.1).

    Raises:
        PeerFault: The partner's key is of small order, so that the secret would be zero whatever our key is.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise blame(partner, "has a public key of small order") from None


@functools.lru_cache(maxsize=1 << 14)  # public keys are looked at again with every sum
def has_small_order(public: bytes) -> bool:
    """Return whether a public key gives zero with every private key, as RFC 7748 section 6.1 has one check."""
    try:
        _ANY.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return True
    return False


def derived(secret: bytes, context: dict[str, Any]) -> bytes:
    """Return a 32-byte key for one use of a secret (RFC 5869, sections 2.2 and 2.3).

    Args:
        secret: 32 bytes; a fresh leaf, or what X25519 gave.
        context: What the key is for, and all that it is bound to; goes into `info` as canonical JSON.
    """
    return HKDF(hashes.SHA256(), 32, salt=None, info=canonical(context)).derive(secret)
