"""Canonical JSON and digests: one byte string for one meaning.

The form is RFC 8785 (JSON Canonicalization Scheme) restricted to what coterie writes: numbers
are finite. For those, Python's shortest round-trip `repr` of a float differs from RFC 8785
section 3.2.2.3 in notation alone (exponents, and "1.0" for 1), so floats are written as their ECMAScript form.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring

__all__ = ["canonical", "digest"]


def canonical(value: object) -> bytes:
    """Return the canonical JSON of `value` as UTF-8.

    Args:
        value: None, booleans, whole numbers below 2**53, finite floats, texts, lists and mappings of these.

    Raises:
        TypeError: Another type.
        ValueError: A number that JSON cannot carry exactly.
    """
    return _write(value).encode()


def digest(value: object) -> str:
    """Return "sha256:" and the hexadecimal SHA-256 of the canonical JSON of `value`."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def _write(value: object) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        if abs(value) >= 2**53:
            raise ValueError("a whole number of 2**53 or more has no exact JSON form")
        return str(value)
    if isinstance(value, float):
        return _float(float(value))
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be texts")
        # RFC 8785 section 3.2.3: sorted by UTF-16 code units.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_write(key)}:{_write(value[key])}" for key in keys) + "}"
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return "[" + ",".join(_write(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} has no canonical form")


def _float(value: float) -> str:
    """Write a float as ECMAScript's Number::toString does (RFC 8785 section 3.2.2.3)."""
    if not math.isfinite(value):
        raise ValueError("a number that is not finite has no JSON form")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # point = position of the decimal point relative to the first significant digit
    leading = len(whole + fraction) - len((whole + fraction).lstrip("0"))
    point = len(whole) - leading + int(exponent or 0)
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        body = digits.ljust(point, "0") if len(digits) <= point else f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        body = "0." + "0" * -point + digits
    else:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        body = f"{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + body
