"""Uniform bytes of a message: expand_message_xmd of RFC 9380, section 5.3.1.

A domain separation tag (DST) keeps uses apart: equal messages under two tags have unrelated bytes.
"""

import hashlib
from collections.abc import Callable

from coterie.privacy.matching.errors import misused

__all__ = ["expander"]

_OVERSIZE = b"H2C-OVERSIZE-DST-"  # RFC 9380, section 5.3.3
_LONGEST_TAG = 255  # its length is one byte
_MOST_BLOCKS = 255  # their number is one byte


def expander(dst: bytes, length: int, *, name: str = "sha512") -> Callable[[bytes], bytes]:
    """Return the function that expands a message under a tag: expand_message_xmd(message, dst, length).

    Args:
        dst: Domain separation tag, 1 byte or more; above 255 bytes its hash stands for it (RFC 9380, section 5.3.3).
        length: Bytes that the function returns, at least 1, at most 255 times the length of the hash.
        name: Hash function, as `hashlib` has it.

    Raises:
        MatchFault: The tag is empty, or the length is not in its range.
    """
    plain = hashlib.new(name)
    size = plain.digest_size
    blocks = -(-length // size)
    if not dst:
        raise misused("a domain separation tag must have at least 1 byte")
    if not 1 <= blocks <= _MOST_BLOCKS:
        raise misused(f"between 1 and {_MOST_BLOCKS * size} bytes can be asked for")
    tag = hashlib.new(name, _OVERSIZE + dst).digest() if len(dst) > _LONGEST_TAG else dst
    tail = tag + bytes([len(tag)])
    # The block of zeros comes before every message: its state is computed once.
    padded = hashlib.new(name, bytes(plain.block_size))
    middle = length.to_bytes(2, "big") + b"\x00" + tail
    last = b"\x01" + tail

    def expand(message: bytes) -> bytes:
        """Return the message's `length` bytes."""
        outer = padded.copy()
        outer.update(message + middle)
        first = outer.digest()
        block = hashlib.new(name, first + last).digest()
        found = [block]
        for number in range(2, blocks + 1):
            mixed = (int.from_bytes(first, "big") ^ int.from_bytes(block, "big")).to_bytes(size, "big")
            block = hashlib.new(name, mixed + bytes([number]) + tail).digest()
            found.append(block)
        return b"".join(found)[:length]

    return expand
