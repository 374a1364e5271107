"""ristretto255 (RFC 9496), a group of prime order: points, secret scalars, and a hash of bytes to points.

Points come in batches, one of 32 bytes to a row, and are computed on all cores: libsodium's calls let other threads
run. The result does not depend on the number of threads.

Guarantees:
    No function returns, or takes for a point, the identity or bytes that are not the one encoding of a point. The order
    of the group is prime: there are no small subgroups in which a secret could leak.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.matching.errors import InvalidPoint, misused
from coterie.privacy.matching.expansion import expander
from coterie.privacy.matching.sodium import sodium
from coterie.privacy.randomness import Stream

__all__ = [
    "ORDER",
    "POINT",
    "SCALAR",
    "Points",
    "check_points",
    "check_scalar",
    "hash_to_group",
    "inverse",
    "multiply",
    "product",
    "random_points",
    "random_scalar",
]

POINT = 32  # bytes of a point
SCALAR = 32  # bytes of a scalar, least significant first
ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 9496, section 4
Points = NDArray[np.uint8]  # shape (n, 32), contiguous; may be a memory map
_UNIFORM = 64  # bytes that are mapped to a point, or reduced to a scalar
_BLOCK = 65_536  # points drawn at once
_HIGHEST = 0x7F  # of a point's last byte
_FEW = 256  # points that are not worth a second thread


def hash_to_group(inputs: Sequence[bytes], dst: bytes, *, threads: int = 0) -> Points:
    """Return the points of byte strings: hash_to_ristretto255 of RFC 9380, appendix B, with SHA-512.

    Args:
        inputs: Byte strings of any lengths.
        dst: Domain separation tag, 1 byte or more; under two tags equal inputs have unrelated points.
        threads: Threads to use; 0 for one to a core.

    Raises:
        MatchFault: The tag is empty.
        GroupMissing: There is no libsodium.

    Guarantees:
        Nobody knows a point's logarithm to the base of another (the map is that of a random oracle).

    Leaks:
        A point tells its input to whoever can guess it: it leaves its owner only once multiplied by a secret.
    """
    library, expand = sodium(), expander(dst, _UNIFORM)
    found = np.empty((len(inputs), POINT), dtype=np.uint8)
    base = found.ctypes.data

    def work(start: int, stop: int) -> int:
        for index in range(start, stop):
            library.map(base + POINT * index, expand(inputs[index]))
        return stop

    _first_short(work, len(inputs), threads)
    _refuse(_first_odd(found), found)  # one in 2^252, which may not go on in silence
    return found


def multiply(points: Points, scalar: bytes, *, threads: int = 0) -> Points:
    """Return every point times one secret scalar, in the same order.

    Args:
        points: Of shape (n, 32), contiguous.
        scalar: 32 bytes, 1 to the order of the group less 1.
        threads: Threads to use; 0 for one to a core.

    Raises:
        InvalidPoint: A point is not the canonical encoding of a point, or is the identity; the first such is named.
        MatchFault: The points' shape, type or layout, or the scalar, is not that.
        GroupMissing: There is no libsodium.

    Guarantees:
        The time that a multiplication takes does not depend on the scalar (libsodium, crypto_scalarmult_ristretto255).
    """
    check_scalar(scalar)
    _check_layout(points)
    library = sodium()
    found = np.empty(points.shape, dtype=np.uint8)
    source, base = points.ctypes.data, found.ctypes.data

    def work(start: int, stop: int) -> int:
        for offset in range(POINT * start, POINT * stop, POINT):
            if library.multiply(base + offset, scalar, source + offset):
                return offset // POINT
        return stop

    _refuse(min(_first_short(work, len(points), threads), _first_odd(points)), points)
    return found


def check_points(points: Points) -> None:
    """Check that every row is the canonical encoding of a point other than the identity.

    Args:
        points: Of shape (n, 32), contiguous.

    Raises:
        InvalidPoint: One is not; the first such is named.
        MatchFault: The points' shape, type or layout is not that.
        GroupMissing: There is no libsodium.
    """
    _check_layout(points)
    library = sodium()
    source = points.ctypes.data

    def work(start: int, stop: int) -> int:
        for index in range(start, stop):
            if not library.valid(source + POINT * index):
                return index
        return stop

    _refuse(min(_first_short(work, len(points), 0), _first_odd(points)), points)


def check_scalar(scalar: bytes) -> None:
    """Check that a scalar is 32 bytes of a number from 1 to the order of the group less 1.

    Raises:
        MatchFault: It is not.
    """
    if len(scalar) != SCALAR or not 0 < int.from_bytes(scalar, "little") < ORDER:
        raise misused(f"a scalar must be {SCALAR} bytes of a number from 1 to the order of the group less 1")


def random_scalar(stream: Stream) -> bytes:
    """Return a uniform secret scalar, 32 bytes.

    Args:
        stream: Secret randomness; 64 bytes of it are reduced, which leaves a bias below 2^-259.

    Raises:
        GroupMissing: There is no libsodium.
    """
    while True:
        found = _scalar(sodium().reduce, stream.bits(_UNIFORM))
        if any(found):
            return found


def random_points(count: int, stream: Stream) -> Points:
    """Return uniform points whose logarithms nobody knows: what a list is padded with.

    Args:
        count: Number of points, 0 or more.
        stream: Secret randomness; each point is the map of 64 bytes of it (RFC 9496, section 4.3.4).

    Raises:
        GroupMissing: There is no libsodium.
    """
    library = sodium()
    found = np.empty((count, POINT), dtype=np.uint8)
    base = found.ctypes.data
    for first in range(0, count, _BLOCK):
        last = min(first + _BLOCK, count)
        drawn = stream.bits(_UNIFORM * (last - first))
        for index in range(first, last):
            at = _UNIFORM * (index - first)
            library.map(base + POINT * index, drawn[at : at + _UNIFORM])
    _refuse(_first_odd(found), found)
    return found


def inverse(scalar: bytes) -> bytes:
    """Return the scalar whose product with this one is 1.

    Raises:
        MatchFault: It is not a scalar, or zero.
        GroupMissing: There is no libsodium.
    """
    check_scalar(scalar)
    return _scalar(sodium().invert, scalar)


def product(a: bytes, b: bytes) -> bytes:
    """Return the product of two scalars.

    Raises:
        MatchFault: One is not a scalar, or zero.
        GroupMissing: There is no libsodium.
    """
    check_scalar(a)
    check_scalar(b)
    return _scalar(sodium().times, a, b)


def _scalar(function: Callable[..., object], *inputs: bytes) -> bytes:
    found = np.empty(SCALAR, dtype=np.uint8)
    function(found.ctypes.data, *inputs)
    return found.tobytes()


def _first_short(work: Callable[[int, int], int], count: int, threads: int) -> int:
    """Return where the first slice that did not reach its end stopped, or `count`."""
    slices = max(1, min(threads or _cores(), count // _FEW))
    bounds = [count * number // slices for number in range(slices + 1)]
    if slices == 1:
        stops = [work(0, count)]
    else:
        with ThreadPoolExecutor(slices) as pool:
            stops = list(pool.map(work, bounds[:-1], bounds[1:]))
    return min((stop for stop, end in zip(stops, bounds[1:], strict=True) if stop < end), default=count)


def _cores() -> int:
    # Where a process is held to some of the cores, more threads would only wait.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_layout(points: Points) -> None:
    if points.dtype != np.uint8 or points.ndim != 2 or points.shape[1] != POINT or not points.flags.c_contiguous:
        raise misused(f"points must be bytes of shape (n, {POINT}), one after the other")


def _first_odd(points: Points) -> int:
    """Return the position of the first row that libsodium takes and a match does not, or the number of rows.

    One is the identity, which is encoded as zeros. The other has the highest bit of its last byte set: libsodium up to
    1.0.18 drops it, so that one point had two encodings (RFC 9496, section 4.3.1, has one).
    """
    odd = np.flatnonzero(~points.any(axis=1) | (points[:, -1] > _HIGHEST))
    return int(odd[0]) if odd.size else len(points)


def _refuse(first: int, points: Points) -> None:
    if first < len(points):
        raise InvalidPoint(first)
