"""Cells, rows and groups as keyed 64-bit numbers, so that counting who is equal to whom keeps no value.

The numbers live in memory for one profile, under a key that is drawn for it; they are never written. Two different
values among n are taken for equal with probability below n^2 / 2^65 (the birthday bound): 3e-6 for ten million.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["hashes_of", "is_number", "joined", "texts_of"]

_NOTHING = np.uint64(0x9E3779B97F4A7C15)  # what a missing cell counts as: equal to every other missing one


def texts_of(values: pa.Array) -> pa.Array | None:
    """Return the cells as texts, or None where a type has none, such as bytes and lists."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_nested(kind):
        return None
    try:
        return pc.cast(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def is_number(kind: pa.DataType) -> bool:
    """Return whether a type is one of whole or floating numbers, whose cells are hashed as they are."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def hashes_of(values: pa.Array, key: bytes) -> NDArray[np.uint64]:
    """Return a number for each cell; equal cells, and missing ones among themselves, have equal numbers.

    Args:
        values: Cells of one type, shape (rows,); those of a type without texts are all equal.
        key: 32 bytes.
    """
    numbers = _bits(values)
    if numbers is not None:
        hashes = _stirred(numbers ^ np.frombuffer(key, dtype="<u8", count=1))
        there = values.is_valid().to_numpy(zero_copy_only=False)
        return np.asarray(np.where(there, hashes, _NOTHING), dtype=np.uint64)
    texts = texts_of(values)
    if texts is None:
        return np.zeros(len(values), dtype=np.uint64)
    encoded = texts.dictionary_encode()
    known = _hashed(encoded.dictionary.to_pylist(), key)
    indices = pc.fill_null(encoded.indices, len(known)).to_numpy(zero_copy_only=False)
    return np.asarray(np.append(known, _NOTHING)[indices], dtype=np.uint64)


def _bits(values: pa.Array) -> NDArray[np.uint64] | None:
    """Return cells of number types as the bits that they are, or None for other types."""
    if not is_number(values.type):
        return None
    if pa.types.is_integer(values.type):
        return np.asarray(pc.fill_null(values, 0).to_numpy(zero_copy_only=False)).astype(np.uint64)
    floats = pc.fill_null(pc.cast(values, pa.float64()), 0.0).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(floats).view(np.uint64)


def _hashed(words: Sequence[str], key: bytes) -> NDArray[np.uint64]:
    """BLAKE2b with a key (RFC 7693 section 2.5), 8 bytes of it."""
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8, key=key).digest() for word in words)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def joined(columns: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Return one number for the cells that stand beside each other; their order counts.

    Args:
        columns: Numbers of each column's cells, one at least, of one shape (rows,).
    """
    total = _stirred(columns[0])
    for column in columns[1:]:
        total = _stirred(total * np.uint64(0xD1342543DE82EF95) + column)
    return total


def _stirred(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): one to one on 64 bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
