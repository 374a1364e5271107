"""What is common to sources whose keys this process holds while it uses them: it wraps and unwraps by itself."""

import abc
from collections.abc import Sequence

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES, unwrap_key, wrap_key
from coterie.privacy.fields.wiping import wipe, wiped

__all__ = ["HeldKeys", "checked", "current_stays", "not_there"]


class HeldKeys(abc.ABC):
    """A `KeySource` over keys that `_key` lends; each use of a key wipes the copy it was lent."""

    kind: str
    apart: bool

    def __init__(self) -> None:
        self._seen: tuple[str, ...] = ()

    @abc.abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Return the epochs that are there now, oldest first; at least one."""

    @abc.abstractmethod
    def _key(self, epoch: str) -> bytearray:
        """Return a copy of an epoch's key, for the caller to wipe."""

    @abc.abstractmethod
    def _make(self, newest: str) -> None:
        """Make an epoch after the newest."""

    @abc.abstractmethod
    def _destroy(self, epoch: str) -> None:
        """Destroy the key of an epoch that is there and not current."""

    def epochs(self) -> tuple[str, ...]:
        """Return the epochs whose keys are there, oldest first, as this object first saw them or last changed them.

        Raises:
            KeyFault: There is none, or the source cannot be read.
        """
        if not self._seen:
            self._seen = self._names()
        return self._seen

    def wrap(self, keys: Sequence[bytes | bytearray], contexts: Sequence[bytes]) -> list[bytes]:
        """Wrap data keys under the current epoch, each bound to its context.

        Raises:
            KeyFault: The current epoch's key cannot be had.
            ValueError: As `checked`.
        """
        pairs = checked(keys, contexts)
        with wiped([self._key(self.epochs()[-1])]) as (kek,):
            return [wrap_key(kek, key, context) for key, context in pairs]

    def unwrap(self, wrapped: Sequence[bytes], contexts: Sequence[bytes], *, epoch: str) -> list[bytearray]:
        """Unwrap data keys, into memory that the caller wipes.

        Raises:
            KeyFault: The epoch's key cannot be had, or a key was not wrapped under it and for its context.
            ValueError: There are more keys than contexts, or fewer.
        """
        opened: list[bytearray] = []
        with wiped([self._key(epoch)]) as (kek,):
            try:
                opened.extend(unwrap_key(kek, key, context) for key, context in zip(wrapped, contexts, strict=True))
            except (KeyFault, ValueError):
                wipe(opened)
                raise
        return opened

    def advance(self, after: str) -> str:
        """Make an epoch that is newer than `after` the current one: one that is there, or else a new one.

        Raises:
            KeyFault: `after` is not there, or a new one is not ours to make.
        """
        names = self._names()
        if after not in names:
            raise not_there(after)
        if after == names[-1]:
            self._make(after)
            names = self._names()
        with wiped([self._key(names[-1])]):  # what is moved to must be readable before anything is
            self._seen = names
        return names[-1]

    def destroy(self, epoch: str) -> None:
        """Destroy an epoch's key; nothing where it is gone already.

        Raises:
            KeyFault: It is the current one, or is not ours to destroy.
        """
        names = self._names()
        if epoch in (names[-1], self.epochs()[-1]):
            raise current_stays(epoch)
        if epoch in names:
            self._destroy(epoch)
        self._seen = tuple(name for name in self._seen if name != epoch)


def checked(keys: Sequence[bytes | bytearray], contexts: Sequence[bytes]) -> list[tuple[bytes | bytearray, bytes]]:
    """Return data keys with their contexts.

    Raises:
        ValueError: A key has not 32 bytes, a context is empty, or there are more of one than of the other.
    """
    pairs = list(zip(keys, contexts, strict=True))
    if not all(len(key) == KEY_BYTES and context for key, context in pairs):
        raise ValueError(f"a data key has {KEY_BYTES} bytes, and a context that is not empty")
    return pairs


def not_there(epoch: str) -> KeyFault:
    """Return the fault of an epoch whose key is not there."""
    rule = f"has no key of epoch {epoch[:40]}: it was destroyed, or this is another source"
    return KeyFault(Fault("the key source", rule, "correct [keys] of coterie.toml, or restore the key if you may"))


def current_stays(epoch: str) -> KeyFault:
    """Return the fault of destroying the current epoch."""
    rule = f"is the current one ({epoch}); what is sealed next would be lost"
    return KeyFault(Fault("an epoch to destroy", rule, "rotate first"))
