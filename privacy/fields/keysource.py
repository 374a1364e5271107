"""Where key-encryption keys come from, and what wraps data keys under them.

A source has *epochs*: key-encryption keys that follow one another. Keys are wrapped under the newest; destroying an
epoch makes everything that is wrapped under it unreadable, in backups too, where the source lies outside of them.

What a source object first sees as its current epoch stays so until its own `advance`: somebody else may add a newer
one at any time (an operator on a mount, a schedule of the key server's), and the epoch that a manifest names must be
the one that its keys were wrapped under.

Key wrapping of the sources that hold their keys themselves: Cobblestone-256 (C2SP chunked-encryption), which commits to
its key and binds a context. A source that keeps its keys in another machine leaves the wrapping to it.
"""

from collections.abc import Sequence
from typing import Protocol

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault

__all__ = ["KEY_BYTES", "KeySource", "unwrap_key", "wrap_key"]

KEY_BYTES = 32


class KeySource(Protocol):
    """Key-encryption keys of one workspace; every method raises `KeyFault` where the source does not answer.

    An object serves one process at a time, for as long as that process' work on the vault takes.

    A PKCS#11 token is added as another class of this shape: `wrap` is C_WrapKey under the newest secret key with its
    label, `unwrap` C_UnwrapKey under that of the epoch, `advance` C_GenerateKey, `destroy` C_DestroyObject.
    """

    kind: str
    """"file", "passphrase", "mount", "environment" or "transit"."""

    apart: bool
    """Whether keys are held apart from the workspace and its backups, so that destroying one proves something."""

    def epochs(self) -> tuple[str, ...]:
        """Return the epochs whose keys are there, oldest first; the last one is current. At least one, or KeyFault.

        A name is 1 to 40 letters, digits, ".", "_" and "-", the first a letter or a digit.
        """

    def wrap(self, keys: Sequence[bytes | bytearray], contexts: Sequence[bytes]) -> list[bytes]:
        """Wrap data keys under the current epoch (the last of `epochs`), each bound to its context.

        Args:
            keys: Data keys of 32 bytes.
            contexts: One for each key, not empty.

        Raises:
            ValueError: A key has another length, a context is empty, or there are more of one than of the other.
        """

    def unwrap(self, wrapped: Sequence[bytes], contexts: Sequence[bytes], *, epoch: str) -> list[bytearray]:
        """Unwrap data keys, into memory that the caller wipes.

        Raises:
            KeyFault: The epoch is not there, or a key was not wrapped under it and for its context.
            ValueError: There are more keys than contexts, or fewer.
        """

    def advance(self, after: str) -> str:
        """Make an epoch that is newer than `after` the current one, and return its name.

        One that is there already is taken: a rotation that was cut short is done again without another epoch, and a
        source whose keys its operator makes moves on to the key that the operator added.

        Args:
            after: The epoch to leave.

        Raises:
            KeyFault: There is no newer one and the source is somebody else's to change (the fix says what they must
                do), or `after` is not there.
        """

    def destroy(self, epoch: str) -> None:
        """Destroy an epoch's key; nothing where it is gone already. Never the current one.

        Destroy the oldest first: a key server cannot destroy one between others.

        Raises:
            KeyFault: It is the current one, or an older one is there still where the oldest must go first, or the
                source is somebody else's to change (the fix says what they must do).
        """


def wrap_key(kek: bytes | bytearray, key: bytes | bytearray, context: bytes) -> bytes:
    """Wrap a data key: Cobblestone-256 under the key-encryption key, 104 bytes for one of 32.

    Args:
        kek: 32 bytes.
        key: The data key.
        context: What it is for; the same is asked for at unwrapping.

    Guarantees:
        Confidentiality and integrity of AES-256-GCM under a key derived afresh for each call (HKDF-SHA512 over a
        random 24-byte salt and the context), and commitment to `kek` and context by 32 bytes of the header.
    """
    sealing = Cobblestone256Encryptor(kek, context)
    return bytes(sealing.update(key) + sealing.finalize())


def unwrap_key(kek: bytes | bytearray, wrapped: bytes, context: bytes) -> bytearray:
    """Unwrap what `wrap_key` wrapped.

    Raises:
        KeyFault: It was wrapped under another key or for another thing, or was changed.
    """
    try:
        opening = Cobblestone256Decryptor(kek, context)
        key = bytearray(opening.update(wrapped) + opening.finalize())
    except (InvalidTag, ValueError):
        key = bytearray()
    if len(key) != KEY_BYTES:
        rule = "does not open under this key: another key, or a changed file"
        raise KeyFault(Fault("a data key", rule, "give the key that sealed it, or restore the file"))
    return key
