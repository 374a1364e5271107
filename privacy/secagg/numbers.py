"""Whole numbers of a secure sum: how fine a unit is, and modulo what sums are formed.

A customer's clipped gradient becomes a vector of whole numbers of L2 norm at most D, its sensitivity in units. A
partner adds its customers' vectors, clamps every coordinate to [-R, R], adds its noise, and sends the sum modulo
2^bits. What is opened is the sum over all partners modulo 2^bits, read as a number from -2^(bits-1) to
2^(bits-1) - 1.

Why it is the plain sum but for a probability below 2^-40 in a whole study. Let n be the partners, s the scale of a
partner's noise, and M = 2^(bits-1) - 1. `numbers_for` sees to it that n R + 11 sqrt(n) s <= M.

1. The clamped sums of at most n partners add up to at most n R in size, whatever the data are.
2. A discrete Gaussian is sub-Gaussian: E exp(u X) <= exp(u^2 s^2 / 2) for every u (Canonne, Kamath and Steinke 2020,
   arXiv 2004.00010, lemma 22). So is the sum of at most n independent ones, with n s^2, and by Chernoff's bound
   P(|noise| >= 11 sqrt(n) s) <= 2 exp(-11^2 / 2) < 2^-86.
3. A study opens at most 2^41 coordinates, over all its sums: by the union bound the probability that any noise is as
   great is below 2^41 2^-86 = 2^-45. What the sampler's law differs by from the exact one adds less than 2^41 n 2^-110,
   which is below 2^-59 for n <= 1000. Together, less than 2^-40.
4. Otherwise the plain sum lies within [-M, M], where numbers modulo 2^bits are read back as they were.

A sum that wraps is a wrong number, not a leak: reading modulo 2^bits is post-processing of the noisy sum.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import SMOOTHING
from coterie.privacy.secagg.noise import GREATEST_SCALE, LEAST_SCALE

__all__ = ["Numbers", "clamped", "from_ring", "greatest_norm", "numbers_for", "to_ring"]

_FINEST, _COARSEST = 20, 14  # binary logarithm of the sensitivity in units
_DEVIATIONS = 11  # of all partners' noise that fit beside the sums


@dataclass(frozen=True)
class Numbers:
    """The whole numbers that a study's sums are formed in.

    Args:
        bits: Sums are formed modulo 2^bits: 32 or 64.
        sensitivity: D, greatest L2 norm of a customer's contribution, in units.
        bound: R, greatest size of a coordinate of a partner's sum before its noise, in units.
        share: Scale of the discrete Gaussian that a partner adds, in units.
    """

    bits: int
    sensitivity: int
    bound: int
    share: int


def numbers_for(*, multiplier: float, partners: int, shares: int, batch_cap: int) -> Numbers:
    """Choose the finest unit in which sums fit 32 bits, or else 64 bits.

    Args:
        multiplier: Noise multiplier that the opened sum must earn: its noise's scale over the sensitivity.
        partners: All partners whose noise may be in a sum.
        shares: How many of them are counted on: the plan's threshold less its colluders.
        batch_cap: Customers whose contributions fit in a partner's sum however they point.

    Returns:
        32 bits with the largest power of two D from 2^14 to 2^20 that fits, or else 64 bits with D = 2^20.

    Raises:
        PlanFault: Not even 64 bits hold the sums, or the noise is beyond the sampler.

    Guarantees:
        shares * share^2 - 36 >= (multiplier * D)^2, in exact arithmetic. A study that opens at most 2^41 coordinates
        reads every one of them as its plain sum with a probability above 1 - 2^-40 (proved above).
    """
    for bits, exponents in ((32, range(_FINEST, _COARSEST - 1, -1)), (64, (_FINEST,))):
        for exponent in exponents:
            sensitivity = 2**exponent
            share = _share(multiplier, sensitivity, shares)
            numbers = Numbers(bits, sensitivity, sensitivity * batch_cap, share)
            if share <= GREATEST_SCALE and _fit(numbers, partners):
                return numbers
    rule = f"needs noise of {multiplier:g} times the clip over sums of {batch_cap} customers, beyond 64 bits"
    raise PlanFault(Fault("privacy", rule, "a larger epsilon, a lower sample rate or fewer steps would fit"))


def greatest_norm(sensitivity: int, parameters: int) -> float:
    """Return the L2 norm to which a gradient is clipped, in units, so that it keeps the sensitivity when rounded.

    Rounding moves each of d coordinates by at most 1/2, and the vector by at most sqrt(d)/2.

    Args:
        sensitivity: Greatest norm after rounding.
        parameters: d.

    Raises:
        ValueError: Rounding would take more than a quarter of the sensitivity, or a sum of squares 64 bits.
    """
    rounding = math.sqrt(parameters) / 2
    if rounding > sensitivity / 4:
        raise ValueError("so many parameters want more units: rounding would take a quarter of the sensitivity")
    if parameters * sensitivity**2 >= 2**63:
        raise ValueError("so many parameters and units do not fit in 64 bits")
    return sensitivity - rounding


def clamped(total: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
    """Move every coordinate to the nearest one in [-bound, bound].

    Guarantees:
        No two vectors are farther apart afterwards, in L2 or any coordinate: it is the projection onto a box. A sum
        keeps the sensitivity that it had.
    """
    return np.clip(total, -bound, bound)


def to_ring(vector: NDArray[np.int64], bits: int) -> NDArray[Any]:
    """Return whole numbers modulo 2^bits, as uint32 or uint64.

    Raises:
        ValueError: Neither 32 nor 64 bits.
    """
    if bits not in {32, 64}:
        raise ValueError("sums are formed modulo 2^32 or 2^64")
    return vector.astype(np.uint32 if bits == 32 else np.uint64)  # as C does it: modulo 2^bits


def from_ring(vector: NDArray[Any]) -> NDArray[np.int64]:
    """Read uint32 or uint64 as the numbers nearest to 0 that they stand for.

    Raises:
        ValueError: Another type.
    """
    if vector.dtype == np.uint32:
        return vector.astype(np.int32).astype(np.int64)
    if vector.dtype == np.uint64:
        return vector.astype(np.int64)
    raise ValueError("a sum modulo 2^32 or 2^64 is held in uint32 or uint64")


def _share(multiplier: float, sensitivity: int, shares: int) -> int:
    """Return the least scale of which `shares` independent parts earn the multiplier."""
    variance = math.ceil(((Fraction(multiplier) * sensitivity) ** 2 + SMOOTHING**2) / shares)
    return max(LEAST_SCALE, math.isqrt(variance - 1) + 1)


def _fit(numbers: Numbers, partners: int) -> bool:
    """Return whether partners * R + 11 sqrt(partners) * share <= 2^(bits-1) - 1."""
    room: int = (1 << (numbers.bits - 1)) - 1 - partners * numbers.bound
    return room >= 0 and _DEVIATIONS**2 * partners * numbers.share**2 <= room * room
