"""Secrets in memory that are overwritten when they are done with, as far as Python allows.

Leaks:
    A copy that the interpreter, a library or the kernel made (of a `bytes`, in a buffer of OpenSSL's, in swapped-out
    pages) is not reached: `docs/limitations.md` says what that means.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["wipe", "wiped"]


def wipe(secrets: Iterable[bytearray]) -> None:
    """Overwrite secrets with zeros."""
    for secret in secrets:
        secret[:] = bytes(len(secret))


@contextmanager
def wiped(secrets: list[bytearray]) -> Iterator[list[bytearray]]:
    """Lend secrets to a block, and overwrite them when it ends, however it ends."""
    try:
        yield secrets
    finally:
        wipe(secrets)
