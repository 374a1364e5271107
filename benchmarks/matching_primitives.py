"""What one operation costs, in microseconds of the clock and of processor time."""

import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.privacy.matching.expansion import expander
from coterie.privacy.matching.group import check_points, hash_to_group, multiply, random_scalar
from coterie.privacy.matching.identifiers import canonical, item
from coterie.privacy.randomness import OsSource

__all__ = ["primitives"]

_MANY, _FEW = 20_000, 2_000


def primitives() -> dict[str, list[float]]:
    """Return the cost of one of each: [by the clock, of processor time], in microseconds."""
    stream = OsSource().stream("benchmark")
    scalar = random_scalar(stream)
    texts = [f"Customer.Number{number:09d}@Mail.example" for number in range(_MANY)]
    items = [item("email", text.lower()) for text in texts]
    points = hash_to_group(items, b"benchmark")
    expand = expander(b"benchmark", 64)
    phones = [f"+1650253{number:04d}" for number in range(_FEW)]
    canonical("phone", phones[0])
    return {
        "canonical form of an e-mail address": _each(_MANY, lambda: [canonical("email", text) for text in texts]),
        "canonical form of a telephone number": _each(_FEW, lambda: [canonical("phone", text) for text in phones]),
        "expand_message_xmd(SHA-512)": _each(_MANY, lambda: [expand(text) for text in items]),
        "hash to the group, 1 thread": _each(_MANY, lambda: hash_to_group(items, b"benchmark", threads=1)),
        "hash to the group, 2 threads": _each(_MANY, lambda: hash_to_group(items, b"benchmark", threads=2)),
        "multiply, 1 thread": _each(_MANY, lambda: multiply(points, scalar, threads=1)),
        "multiply, 2 threads": _each(_MANY, lambda: multiply(points, scalar, threads=2)),
        "check, all cores": _each(_MANY, lambda: check_points(points)),
        "P-256 of `cryptography`: decode and multiply": _each(_FEW, _p256()),
    }


def _p256() -> Callable[[], object]:
    key, curve = ec.generate_private_key(ec.SECP256R1()), ec.SECP256R1()
    public = ec.generate_private_key(curve).public_key()
    encoded = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def work() -> None:
        for _ in range(_FEW):
            key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, encoded))

    return work


def _each(many: int, work: Callable[[], object]) -> list[float]:
    """Return the least of three."""
    found = []
    for _ in range(3):
        began, busy = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - began, time.process_time() - busy))
    return [min(one[kind] for one in found) / many * 1e6 for kind in (0, 1)]
