"""Masks: streams of AES-256 in counter mode (NIST SP 800-38A, section 6.5), added to vectors modulo 2**bits.

Partner u sends y_u = x_u + PRG(b_u) + (sum of PRG(s_uv) over v > u) - (sum of PRG(s_uv) over v < u), as in Bonawitz
et al. 2017, section 4 and figure 4, round 2; which of two partners adds is a convention.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from coterie.privacy.secagg.keys import derived, shared

__all__ = ["PURPOSES", "apply", "noise_key", "pair_key", "self_key"]

PURPOSES = ("rows", "sample", "noise")
"""What a partner draws for a sum: which rows of a customer, which customers, and its noise."""

_BLOCK = 1 << 17  # bytes at a time: stream and vector stay in the processor's cache
_ZEROS = bytes(_BLOCK)
_FORMAT = "coterie/secagg/mask/v1"


def self_key(leaf: bytes, about: dict[str, Any], name: str) -> bytes:
    """Return the key of the mask that a partner alone knows until the survivors are agreed on."""
    return _key(leaf, about, "self", [name])


def noise_key(leaf: bytes, about: dict[str, Any], name: str, *, purpose: str, table: str) -> bytes:
    """Return the key of what a partner draws for a sum, which nobody else ever learns.

    Args:
        leaf: The noise leaf.
        about: What `transcript.about` says of the sum.
        name: Whose leaf.
        purpose: One of `PURPOSES`: each has a key of its own, so that how much one draws shifts no other.
        table: Digest of what is summed over: another table has other draws. It goes nowhere but into the key.
    """
    return _key(leaf, {**about, "table": table}, purpose, [name])


def pair_key(leaf: bytes, public: bytes, about: dict[str, Any], *, pair: tuple[str, str]) -> bytes:
    """Return the key of the mask between two partners; the same from either side.

    Args:
        leaf: The pair leaf of the first of the pair.
        public: The public key of the pair leaf of the second.
        about: What `transcript.about` says of the sum.
        pair: Whose leaf, and whose public key.

    Raises:
        PeerFault: The public key is of small order.
    """
    return _key(shared(leaf, public, pair[1]), about, "pair", sorted(pair))


def _key(secret: bytes, about: dict[str, Any], purpose: str, who: list[str]) -> bytes:
    return derived(secret, {"format": _FORMAT, "purpose": purpose, **about, "who": who})


def apply(vector: NDArray[Any], *, plus: Iterable[bytes], minus: Iterable[bytes]) -> None:
    """Add and subtract masks, in place.

    Args:
        vector: uint32 or uint64, contiguous.
        plus: Keys of the masks to add.
        minus: Keys of the masks to subtract.
    """
    buffer = bytearray(_BLOCK + 16)  # `update_into` wants room for one more block
    width = vector.dtype.itemsize
    words = np.frombuffer(buffer, dtype=vector.dtype.newbyteorder("<"), count=_BLOCK // width)
    size = len(words)
    for operation, keys in ((np.add, plus), (np.subtract, minus)):
        for key in keys:
            # A zero counter block: a key is for one mask alone.
            stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
            for start in range(0, len(vector), size):
                part = vector[start : start + size]
                stream.update_into(memoryview(_ZEROS)[: len(part) * width], buffer)
                operation(part, words[: len(part)], out=part)
