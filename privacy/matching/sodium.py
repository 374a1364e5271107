"""libsodium, the library that computes in ristretto255: found once, checked by vectors of RFC 9496 before it is used.

It is the system's own (Debian and Ubuntu: libsodium23), at least 1.0.18, the first that has the group. It is called
through `ctypes`, which lets other threads run during each call. Its multiplication takes the same time whatever the
secret is, and refuses what does not encode a point; but 1.0.18 drops the highest bit first, which `group` looks at.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coterie.privacy.errors import Fault
from coterie.privacy.matching.errors import GroupMissing

__all__ = ["Sodium", "sodium"]

# By the loader's names, newest first: a search of the disk would start other programs.
_NAMES = (
    "libsodium.so.26",
    "libsodium.so.23",
    "libsodium.26.dylib",
    "libsodium.23.dylib",
    "/opt/homebrew/lib/libsodium.dylib",
    "/usr/local/lib/libsodium.dylib",
    "libsodium.dll",
)
_INSTALL = (
    "install libsodium 1.0.18 or newer: apt-get install libsodium23 (Debian, Ubuntu), dnf install libsodium (Fedora), "
    "brew install libsodium (macOS)"
)

# RFC 9496: the generator and its double (appendix A.1), and a hash with its element (appendix A.3).
_GENERATOR = "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
_DOUBLE = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
_UNIFORM = (
    "5d1be09e3d0c82fc538112490e35701979d99e06ca3e2b5b54bffe8b4dc772c1"
    "4d98b696a1bbfb5ca32c436cc61c16563790306c79eaca7705668b47dffe5bb6"
)
_ELEMENT = "3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46"

_In = bytes | int  # a buffer's bytes, or its address


@dataclass(frozen=True)
class Sodium:
    """The functions of libsodium that a match needs; addresses are checked by nobody, so only `group` calls them.

    Args:
        multiply: (result, scalar, point): scalar multiplication; not 0 for what is no point, or for the identity.
        map: (result, 64 bytes): the map of RFC 9496, section 4.3.4, as a hash to the group uses it.
        valid: (point): 1 for the encoding of a point, the identity too.
        reduce: (result, 64 bytes): a number modulo the group's order.
        invert: (result, scalar): its inverse; not 0 for zero.
        times: (result, scalar, scalar): their product modulo the group's order.
    """

    multiply: Callable[[_In, _In, _In], int]
    map: Callable[[_In, _In], int]
    valid: Callable[[_In], int]
    reduce: Callable[[_In, _In], None]
    invert: Callable[[_In, _In], int]
    times: Callable[[_In, _In, _In], None]


@functools.cache
def sodium() -> Sodium:
    """Return libsodium's functions, found and checked at the first call.

    Raises:
        GroupMissing: The library is not installed, is older than 1.0.18 or was built without ristretto255, does not
            start, or does not give what RFC 9496 says.
    """
    library = _load(_NAMES)
    try:
        start = library.sodium_init
        functions = Sodium(
            multiply=_typed(library.crypto_scalarmult_ristretto255, 3),
            map=_typed(library.crypto_core_ristretto255_from_hash, 2),
            valid=_typed(library.crypto_core_ristretto255_is_valid_point, 1),
            reduce=_typed(library.crypto_core_ristretto255_scalar_reduce, 2, gives=None),
            invert=_typed(library.crypto_core_ristretto255_scalar_invert, 2),
            times=_typed(library.crypto_core_ristretto255_scalar_mul, 3, gives=None),
        )
    except AttributeError:
        raise _missing("libsodium must have ristretto255, since 1.0.18 unless built without it") from None
    if start() < 0:
        raise _missing("libsodium must start")
    if not _right(functions):
        raise _missing("libsodium must compute what RFC 9496, appendix A, says")
    return functions


def _load(names: tuple[str, ...]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise _missing("matching needs the library libsodium")


def _typed(function: Any, arguments: int, *, gives: type | None = ctypes.c_int) -> Callable[..., Any]:  # noqa: ANN401
    function.argtypes = [ctypes.c_void_p] * arguments
    function.restype = gives
    typed: Callable[..., Any] = function
    return typed


def _right(functions: Sodium) -> bool:
    doubled, mapped = ctypes.create_string_buffer(32), ctypes.create_string_buffer(32)
    two = (2).to_bytes(32, "little")
    done = functions.multiply(ctypes.addressof(doubled), two, bytes.fromhex(_GENERATOR))
    done |= functions.map(ctypes.addressof(mapped), bytes.fromhex(_UNIFORM))
    refused = functions.multiply(ctypes.addressof(ctypes.create_string_buffer(32)), two, bytes(32))  # the identity
    return done == 0 and refused != 0 and doubled.raw.hex() == _DOUBLE and mapped.raw.hex() == _ELEMENT


def _missing(rule: str) -> GroupMissing:
    return GroupMissing(Fault("the group of a match", rule, _INSTALL))
