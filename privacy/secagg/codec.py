"""A message of a secure sum as one string of bytes, for whoever relays it or keeps it.

    8 bytes, big-endian: length of the head
    head: canonical JSON of {"arrays": [{"dtype", "shape"}, ...], "header": {...}, "kind": "..."}
    the arrays' bytes, one after another

What comes in is believed in nothing: one message has one spelling, and sizes are held against the bytes that are there.
"""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.secagg.errors import PeerFault
from coterie.privacy.secagg.messages import (
    DealtShares,
    MaskedVector,
    Message,
    RevealedShares,
    RoundKeys,
    SurvivorsSigned,
)

__all__ = ["from_bytes", "message_of", "to_bytes"]

_LONGEST = 1 << 20
_DTYPES = ("|u1", "<u4", "<u8")
_TEXTS = ("plan", "partner", "step", "model", "cohort", "keys", "transcript", "signature")
_NUMBERS = ("attempt", "epoch")


def to_bytes(message: Message) -> bytes:
    """Return a message as bytes."""
    head = _head(message)
    bodies: list[Any] = [np.ascontiguousarray(array).ravel().view(np.uint8) for array in message.arrays]
    return b"".join((len(head).to_bytes(8, "big"), head, *bodies))


def from_bytes(data: bytes, *, event: DistributedGaussian | None = None) -> Message:
    """Read a message that `to_bytes` wrote.

    Args:
        data: What came.
        event: What pays for a masked vector, which is not in its bytes; None where none is expected.

    Raises:
        PeerFault: It is not a message of a known kind with exactly its fields.
    """
    try:
        length = int.from_bytes(data[:8], "big")
        if len(data) < 8 or not 0 < length <= min(_LONGEST, len(data) - 8):
            raise ValueError
        head = json.loads(data[8 : 8 + length])
        arrays = _arrays(head["arrays"], memoryview(data)[8 + length :])
        message = message_of(head["kind"], head["header"], arrays, event=event)
        if _head(message) != data[8 : 8 + length]:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise PeerFault("", Fault("a message", "is not one of a secure sum", "use the same coterie")) from None
    return message


def message_of(
    kind: str, header: dict[str, Any], arrays: tuple[NDArray[Any], ...], *, event: DistributedGaussian | None = None
) -> Message:
    """Make a message from its parts.

    Raises:
        KeyError, TypeError, ValueError: The parts are not those of a message of this kind.
    """
    if not all(isinstance(header[name], str) for name in _TEXTS if name in header):
        raise TypeError(kind)
    if not all(type(header[name]) is int and 0 < header[name] < 2**31 for name in _NUMBERS if name in header):
        raise TypeError(kind)
    if kind == RoundKeys.kind:
        steps = header["steps"]
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise TypeError(kind)
        return RoundKeys(**{**header, "steps": tuple(steps)}, arrays=_so_many(arrays, 2))
    if kind == DealtShares.kind:
        return DealtShares(**header, arrays=_so_many(arrays, 2))
    if kind == MaskedVector.kind and event is not None:
        return MaskedVector(**header, event=event, arrays=_so_many(arrays, 1))
    if kind == RevealedShares.kind:
        return RevealedShares(**header, arrays=_so_many(arrays, 1))
    if kind == SurvivorsSigned.kind:
        _so_many(arrays, 0)
        return SurvivorsSigned(**header)
    raise KeyError(kind)


def _head(message: Message) -> bytes:
    shapes = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in message.arrays]
    return canonical({"arrays": shapes, "header": message.header, "kind": message.kind})


def _arrays(shapes: list[dict[str, Any]], data: memoryview) -> tuple[NDArray[Any], ...]:
    """Cut the arrays out of what follows the head, holding every size against it first."""
    arrays, place = [], 0
    for one in shapes:
        shape = tuple(int(size) for size in one["shape"])
        if one["dtype"] not in _DTYPES or not all(0 <= size < 2**40 for size in shape) or len(shape) > 4:
            raise ValueError(one["dtype"])
        size = math.prod(shape) * np.dtype(one["dtype"]).itemsize
        if size > len(data) - place:
            raise ValueError(size)
        arrays.append(np.frombuffer(data, one["dtype"], math.prod(shape), place).reshape(shape))
        place += size
    if place != len(data):
        raise ValueError(place)
    return tuple(arrays)


def _so_many(arrays: tuple[NDArray[Any], ...], count: int) -> tuple[NDArray[Any], ...]:
    if len(arrays) != count:
        raise ValueError(count)
    return arrays
