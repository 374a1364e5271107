"""Where privacy randomness comes from.

Rules this module enforces:
- every secret draw comes from AES-256 in counter mode (NIST SP 800-38A section 6.5) under a key that the
  operating system made for that stream alone; no global generator is ever touched;
- a `SeededSource` exists for tests, says so in its name, and turns every Guarantee made with it into none.

Torch's own CPU generator is not used for privacy: it is a Mersenne twister seeded with 32 bits.
"""

import hashlib
import os
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

__all__ = ["OsSource", "RandomSource", "SeededSource", "Stream"]


class Stream:
    """One stream of secret randomness; never shared between two mechanisms.

    Args:
        key: 32 bytes, used for this stream alone.
    """

    def __init__(self, key: bytes) -> None:
        # A zero counter block is safe here because the key serves one stream only.
        self._keystream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def bits(self, count: int) -> bytes:
        """Return `count` random bytes."""
        return self._keystream.update(bytes(count))

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Return `count` uniforms in [0, 1) with 53 random bits each."""
        words = np.frombuffer(self.bits(8 * count), dtype=np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normals(self, count: int) -> NDArray[np.float64]:
        """Return `count` standard normals (Box and Muller 1958, in float64).

        Guarantees:
            Tails end at 8.57 standard deviations (53-bit uniforms), which leaves out a mass below 1e-17.
        """
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log1p(-self.uniforms(half)))
        angle = (2.0 * np.pi) * self.uniforms(half)
        return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]

    def below(self, bound: int) -> int:
        """Return a uniform whole number in [0, bound), by rejection."""
        width = (bound.bit_length() + 7) // 8
        limit = (256**width // bound) * bound
        while True:
            draw = int.from_bytes(self.bits(width), "big")
            if draw < limit:
                return draw % bound


class RandomSource(Protocol):
    """Makes streams; `name` is written beside every event that it pays noise for."""

    @property
    def name(self) -> str:
        """Name written in the ledger: "os", or a name that voids the guarantee."""

    def stream(self, label: str) -> Stream:
        """Return a fresh stream for one mechanism, named by `label`."""


class OsSource:
    """The operating system's generator: the only source that earns a Guarantee."""

    name = "os"

    def stream(self, label: str) -> Stream:  # noqa: ARG002 - fresh entropy needs no label
        """Return a stream under a fresh key from the operating system."""
        return Stream(os.urandom(32))


class SeededSource:
    """Repeatable streams for tests of byte-for-byte equality; its noise is public.

    Args:
        seed: Any bytes. Equal seeds and labels give equal streams.
    """

    name = "seeded"

    def __init__(self, seed: bytes) -> None:
        self._seed = seed

    def stream(self, label: str) -> Stream:
        """Return the stream that belongs to `label`."""
        return Stream(hashlib.sha256(b"coterie/seeded/v1\n" + self._seed + label.encode()).digest())
