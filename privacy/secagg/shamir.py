"""Shamir's secret sharing ("How to share a secret", CACM 1979) of bytes, over the field of AES.

The field is GF(2^8) with the polynomial x^8 + x^4 + x^3 + x + 1 (FIPS 197, section 4.2). Every byte of every secret
has a polynomial of its own. One factor of a product is always public (a holder's place, or a Lagrange coefficient), and
the other, which is secret, is only ever shifted and added: no table is indexed by a secret, so a cache tells nothing of
it.
"""

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.errors import misused

__all__ = ["join", "split"]

Bytes = NDArray[np.uint8]

_MOST = 255  # places 1 to 255: the field's elements but 0, at which the secret lies


def split(secrets: Bytes, *, threshold: int, holders: int, stream: Stream) -> Bytes:
    """Split secrets into shares.

    Args:
        secrets: Shape (count, 32).
        threshold: How many shares give a secret back.
        holders: How many shares are made; the holder in place i is the point x = i + 1.
        stream: Secret randomness.

    Returns:
        Shares, shape (holders, count, 32).

    Raises:
        Misuse: A threshold or number of holders that the field cannot serve.

    Guarantees:
        Fewer than `threshold` shares of a secret are independent of it: every other coefficient is uniform.
    """
    if not 1 <= threshold <= holders <= _MOST:
        raise misused(f"shares want 1 <= threshold <= holders <= {_MOST}")
    shape = (threshold - 1, *secrets.shape)
    coefficients = np.frombuffer(stream.bits(int(np.prod(shape))), dtype=np.uint8).reshape(shape)
    places = np.arange(1, holders + 1, dtype=np.uint8).reshape(-1, *[1] * secrets.ndim)
    # Horner's rule, from the highest coefficient down to the secret.
    shares = np.zeros((holders, *secrets.shape), dtype=np.uint8)
    for coefficient in (*coefficients, secrets):
        shares = _product(shares, places) ^ coefficient
    return shares


def join(shares: Mapping[int, Bytes]) -> Bytes:
    """Join shares into the secrets.

    Args:
        shares: By point x, arrays of one shape (count, 32); exactly as many as the threshold.

    Raises:
        Misuse: No shares, or a point outside the field.

    Guarantees:
        A result that is not the secret shows against what the dealer published, never here.
    """
    if not shares or not all(1 <= point <= _MOST for point in shares):
        raise misused(f"shares are joined at points from 1 to {_MOST}")
    secrets = np.zeros_like(next(iter(shares.values())))
    for point, share in shares.items():
        # The Lagrange coefficient at 0: the product of x_j / (x_j - x_i); subtraction is exclusive or.
        above = below = 1
        for other in shares:
            if other != point:
                above, below = _times(above, other), _times(below, other ^ point)
        secrets ^= _product(share, np.uint8(_times(above, _inverse(below))))
    return secrets


def _product(secret: Bytes, public: Bytes | np.uint8) -> Bytes:
    """Multiply by shifting and adding (FIPS 197, section 4.2.1), every bit with the same operations."""
    result = np.zeros(np.broadcast_shapes(secret.shape, np.shape(public)), dtype=np.uint8)
    power = secret
    for bit in range(8):
        result ^= power & (((public >> np.uint8(bit)) & np.uint8(1)) * np.uint8(0xFF))
        power = (power << np.uint8(1)) ^ ((power >> np.uint8(7)) * np.uint8(0x1B))
    return result


def _times(a: int, b: int) -> int:
    """Multiply two public elements."""
    result = 0
    while b:
        result ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return result


@functools.lru_cache(maxsize=256)
def _inverse(value: int) -> int:
    """Return value**254 of a public element, since value**255 is 1."""
    result = 1
    for _ in range(254):
        result = _times(result, value)
    return result
