"""Sealed streams: bytes of any length under one data key, written and read in pieces.

The format is C2SP chunked-encryption with AES-256-GCM (Cobblestone-256): chunks of 16 KiB, each authenticated with its
place and whether it is the last, under a key derived from the data key, a random salt and a context; a header of 56
bytes holds the salt and a commitment to data key and context. Nothing of a chunk is handed on unchecked.

Guarantees:
    Under one data key and context, what is read is a prefix of what was written, and where the end is reached, the
    whole of it; any other byte, order, length, key or context is a `SealFault`.

Leaks:
    The length, to the byte.
"""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import AlreadyFinalized, InvalidTag

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import SealFault

__all__ = ["OpenedStream", "SealedStream"]

_READ = 1 << 18  # bytes of a file at a time; more of them are slower, since their memory is new each time


class SealedStream:
    """A file that is being sealed; durable once `close` has returned and its folder is synced.

    After an error the file is closed for good, and the caller's to remove.

    Args:
        path: A new file; it is never written over.
        key: 32 bytes that seal nothing else.
        context: What the stream is; asked for again at reading.

    Raises:
        OSError: From any method: the disk is full, or the file exists.
    """

    def __init__(self, path: Path, key: bytes | bytearray, context: bytes) -> None:
        self._sealing = Cobblestone256Encryptor(key, context)
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self._hash, self.size = hashlib.sha256(), 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Seal and write some bytes."""
        plain = memoryview(data).cast("B")
        self._put(self._sealing.update(plain))
        return len(plain)

    def close(self) -> None:
        """Write the last chunk and force the file to disk."""
        self._put(self._sealing.finalize())
        with self._file:
            os.fsync(self._file.fileno())

    def abandon(self) -> None:
        """Close the file as it is: what was written cannot be opened as a whole stream."""
        self._file.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the file so far."""
        return "sha256:" + self._hash.hexdigest()

    def _put(self, sealed: bytes) -> None:
        self._hash.update(sealed)
        rest = memoryview(sealed)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            # Whatever was sealed next would follow a gap, and be found not to open when it is needed.
            self.abandon()
            raise
        self.size += len(sealed)


class OpenedStream:
    """A sealed file that is being read, in pieces; a context manager.

    Args:
        path: The file.
        key: Its data key.
        context: What it must be.

    Raises:
        SealFault: It is missing.
    """

    def __init__(self, path: Path, key: bytes | bytearray, context: bytes) -> None:
        self._path, self._opening = path, Cobblestone256Decryptor(key, context)
        self._rest, self._ended = memoryview(b""), False
        self._file = _file(path)
        self.closed = False

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer where the stream ends; the end is checked before the last ones are returned.

        Raises:
            SealFault: The file was changed, cut or exchanged, or is another stream's, or another key's. So is every
                later call.
            ValueError: The size is negative, or the stream is closed.
        """
        if size < 0 or self.closed:
            raise ValueError("a stream is read in pieces of a size, while it is open")
        parts, wanted = [], size
        while wanted and self._more():
            parts.append(self._rest[:wanted])
            self._rest = self._rest[wanted:]
            wanted -= len(parts[-1])
        # A message of full chunks ends with an empty one: look ahead, so that its absence shows before the last byte.
        self._more()
        return b"".join(parts)

    def _more(self) -> bool:
        """Whether there is more to read, checked to the end where there is none."""
        while not self._rest and not self._ended:
            try:
                sealed = self._file.read(_READ)
                self._rest = memoryview(self._opening.update(sealed) if sealed else self._opening.finalize())
                self._ended = not sealed
            except (InvalidTag, AlreadyFinalized, ValueError):
                raise _damaged(self._path) from None
            except OSError as error:
                raise _unreadable(self._path, error) from None
        return bool(self._rest)

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.closed, self._rest = True, memoryview(b"")
        self._file.close()


def _file(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(path, error) from None


def _damaged(path: Path) -> SealFault:
    rule = "does not open: it was changed, cut short or exchanged, or is of another key"
    return SealFault(Fault(str(path), rule, "restore the vault together with its ledger, or seal the table again"))


def _unreadable(path: Path, error: OSError) -> SealFault:
    return SealFault(Fault(str(path), f"cannot be read ({error.strerror})", "restore it, or check its rights"))
