"""Arrays in Flower's records, believed in nothing: kinds, types, and sizes are checked before memory is taken."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from coterie.privacy.errors import CoterieError, Fault

__all__ = ["WireFault", "named", "pack", "record_of", "unpack", "unpack_named", "wire_fault"]

# Format 1.0 of numpy's files: magic, length of the text, text.
_NAMED = 8  # names that an error lists; what it says may be published
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"(?P<text>\{'descr': '(?P<dtype><f4|<i8|<u4|<u8|\|u1)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,7})\), \} *\n)",
    re.DOTALL,
)


class WireFault(CoterieError):
    """A message that is not in this language: the peer's fault, never ours."""


def pack(arrays: Sequence[NDArray[Any]]) -> ArrayRecord:
    """Return arrays as a record, named by their place."""
    return named(_names(len(arrays)), arrays)


def unpack(record: ArrayRecord) -> list[NDArray[Any]]:
    """Return the arrays of a record that `pack` made.

    Raises:
        WireFault: It is not one.
    """
    return unpack_named(record, _names(len(record)))


def named(names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> ArrayRecord:
    """Return arrays as a record under these names."""
    pairs = zip(names, arrays, strict=True)
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in pairs})


def unpack_named(record: Any, names: Sequence[str]) -> list[NDArray[Any]]:  # noqa: ANN401 - Flower's record
    """Return the arrays of a record that holds exactly these names, in this order.

    Raises:
        WireFault: It does not.
    """
    if list(record) != list(names):
        raise wire_fault(
            "the arrays", "must be named " + (", ".join(names) if len(names) <= _NAMED else "by their places")
        )
    return [_array(record[name]) for name in names]


def _array(array: Array) -> NDArray[Any]:
    """Read one array, holding its header against its bytes before believing either.

    The header is held against the one form in which numpy writes it; numpy's own reader would run it through
    Python's parser, which knows more ways to fail than a peer should be able to choose from.
    """
    found = _HEADER.match(array.data)
    try:
        if found is None or int.from_bytes(found["length"], "little") != found.end() - found.start("text"):
            raise ValueError
        shape = tuple(int(size) for size in found["shape"].replace(b",", b" ").split())
        dtype = np.dtype(found["dtype"].decode())
        size = math.prod(shape)
        if len(array.data) - found.end() != size * dtype.itemsize:
            raise ValueError
        # No copy here: of what a peer sends, no more is taken than once.
        return np.frombuffer(array.data, dtype, size, found.end()).reshape(shape)
    except ValueError:
        raise wire_fault("an array", "must be of a type that is known here, in C order, whole") from None


def record_of(content: RecordDict, name: str, kind: type[Any], names: set[str]) -> Any:  # noqa: ANN401 - Flower's record
    """Return one record of a message that has exactly these.

    Raises:
        WireFault: It has others, or this one is of another kind.
    """
    if set(content) != names or not isinstance(content[name], kind):
        raise wire_fault("the message", "must have the records " + ", ".join(sorted(names)))
    return content[name]


def _names(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def wire_fault(place: str, rule: str) -> WireFault:
    """Return a fault of the peer's message."""
    return WireFault(Fault(place, rule, "use the same version of coterie on both sides"))
