"""Discrete Gaussian noise for long vectors: whole numbers alone, from the first bit to the last.

A draw of N_Z(0, scale^2) has P(x) proportional to exp(-x^2 / (2 scale^2)). Two steps, both in whole numbers:

- **Base.** A narrow discrete Gaussian of variance v is drawn by inversion: 127 random bits are held against its
  cumulative probabilities, one more bit is the sign. The table is made once for each scale, in fixed point of 320 bits.
- **Convolution.** x = y_1 + k y_2 + k^2 y_3 + ... + k^(n-1) y_n, with n base draws and a whole k. Its variance is
  v (1 + k^2 + ... + k^(2n-2)), and v is chosen, as a fraction, such that this is scale^2 exactly.

Why a convolution is a discrete Gaussian (Peikert 2010, "An Efficient and Parallel Gaussian Sampler for Lattices",
theorem 3.1; Pöppelmann, Ducas and Güneysu 2014, lemma 1; Micciancio and Walter 2017): for y of variance v and z of
variance w >= v, completing the square gives

    P(y + k z = x) = Z exp(-x^2 / (2 (v + k^2 w))) sum over integers b of exp(-(b - c x)^2 / (2 t)),
    1 / t = 1 / w + k^2 / v,

for constants Z and c. By Poisson summation the last sum is sqrt(2 pi t) (1 + e(x)) with |e(x)| <= 3 exp(-2 pi^2 t).
Here 36 (1 + k^2) <= v, so t >= 36 and |e(x)| < 1e-300 for every x: a factor, which holds in the tails as well.
"""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.randomness import Stream

__all__ = ["GREATEST_SCALE", "LEAST_SCALE", "discrete_gaussians"]

LEAST_SCALE, GREATEST_SCALE = 64, 2**40

_WIDEST_BASE = 1100  # its table has 15,400 thresholds, which stay in a processor's second cache
_SMOOTH = 36  # square of the smoothing scale 6: exp(-2 pi^2 36) is 1e-308
_REACH = 14  # base scales that a table spans: 2 exp(-14^2 / 2) is 2^-140
_POINT = 320  # bits behind the point while a table is made
_DEPTH = 127  # bits behind the point in a table: 63 in the high word, 64 in the low one
_GUIDE = 16  # leading bits that settle most draws without a search
_CHUNK = 1 << 15  # draws at a time; fixed, since it decides which bits of a stream make which draw
_UNSETTLED = -1


class _Base(NamedTuple):
    """Cumulative probabilities of a base's magnitude, and how bases are put together.

    Args:
        high: Leading 63 bits of P(|y| <= m), for m from 0, uint64.
        low: The 64 bits behind them.
        guide: The magnitude that 16 leading bits settle, or `_UNSETTLED`.
        terms: n, base draws for one draw.
        factor: k.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    guide: NDArray[np.int16]
    terms: int
    factor: int


def discrete_gaussians(scale: int, count: int, stream: Stream) -> NDArray[np.int64]:
    """Draw from the discrete Gaussian N_Z(0, scale^2).

    Args:
        scale: A whole number from 64 to 2^40.
        count: How many independent draws.
        stream: Secret randomness. Equal streams give equal draws.

    Returns:
        Whole numbers, shape (count,).

    Raises:
        ValueError: The scale or the count is out of range.

    Guarantees:
        A draw's law is within 2^-110 of N_Z(0, scale^2) in statistical distance: a base draw within 15,400 * 2^-127 for
        its rounded thresholds and 2^-139 for its cut tails, at most 5 base draws, and factors 1 +- 1e-300 for
        convolutions. All 2^41 draws of a study together are within 2^-69: its delta grows by less than
        (1 + exp(epsilon)) 2^-69. No floating-point number is used.

    Leaks:
        How long a search takes depends on the draw, as in every sampler by table: it is not for a machine that shares
        its caches with an adversary.
    """
    if not LEAST_SCALE <= scale <= GREATEST_SCALE:
        raise ValueError("the scale of a discrete Gaussian lies between 64 and 2^40 here")
    if count < 0:
        raise ValueError("a count of draws is not negative")
    base = _base_of(scale)
    draws = np.empty(count, dtype=np.int64)
    for start in range(0, count, _CHUNK):
        part = draws[start : start + _CHUNK]
        part[:] = _base_draws(base, len(part), stream)
        for _ in range(base.terms - 1):  # Horner: k (k y_3 + y_2) + y_1
            part *= base.factor
            part += _base_draws(base, len(part), stream)
    return draws


def _base_draws(base: _Base, count: int, stream: Stream) -> NDArray[np.int64]:
    """Draw from a base: the last bit of a word is the sign, the others are the leading bits of a uniform."""
    words = np.frombuffer(stream.bits(8 * count), dtype="<u8")
    draws: NDArray[np.int64] = base.guide[words >> np.uint64(64 - _GUIDE)].astype(np.int64)
    unsettled = np.flatnonzero(draws == _UNSETTLED)
    draws[unsettled] = _searched(base, words[unsettled] >> np.uint64(1), stream)
    signs = (words & np.uint64(1)).astype(np.int64)
    # Two's complement: for sign 1, flip all bits and add 1.
    draws ^= -signs
    draws += signs
    return draws


def _searched(base: _Base, leading: NDArray[np.uint64], stream: Stream) -> NDArray[np.int64]:
    """Count, for each uniform, the thresholds at most as great as it."""
    found = np.searchsorted(base.high, leading, side="right")
    first = np.searchsorted(base.high, leading, side="left")
    # The low word matters, and is drawn, only where the high words are equal: about once in 2^49 draws.
    for place in np.flatnonzero(first < found):
        behind = np.frombuffer(stream.bits(8), dtype="<u8")
        tied = base.low[first[place] : found[place]]
        found[place] = first[place] + np.searchsorted(tied, behind, side="right")[0]
    return found.astype(np.int64)


@functools.lru_cache(maxsize=8)
def _base_of(scale: int) -> _Base:
    """Make the table from which noise of a scale is drawn."""
    terms, factor = _convolution(scale)
    # exp(-1 / (2 v)), v = scale^2 / (1 + k^2 + ...)
    thresholds = _thresholds(Fraction(scale * scale, _geometric(factor, terms)))
    high = np.array([value >> 64 for value in thresholds], dtype=np.uint64)
    low = np.array([value & (2**64 - 1) for value in thresholds], dtype=np.uint64)
    edges = np.arange(2**_GUIDE + 1, dtype=np.uint64) << np.uint64(63 - _GUIDE)
    settled = np.searchsorted(high, edges, side="left")
    guide = np.where(settled[1:] == settled[:-1], settled[:-1], _UNSETTLED).astype(np.int16)
    for array in (high, low, guide):
        array.setflags(write=False)
    return _Base(high, low, guide, terms, factor)


def _geometric(factor: int, terms: int) -> int:
    """Return 1 + k^2 + ... + k^(2n-2)."""
    return sum(factor ** (2 * power) for power in range(terms))


def _convolution(scale: int) -> tuple[int, int]:
    """Return the fewest base draws that make a scale, and the greatest k that keeps the base smooth over it."""
    square, terms, factor = scale * scale, 1, 1
    while _WIDEST_BASE**2 * _geometric(factor, terms) < square:
        terms += 1
        # 36 (1 + k^2) <= v; beyond 183 no base is wide enough.
        factor = next(k for k in range(183, 0, -1) if _SMOOTH * (1 + k * k) * _geometric(k, terms) <= square)
    return terms, factor


def _thresholds(variance: Fraction) -> list[int]:
    """Return 2^127 P(|y| <= m) for m = 0, 1, ..., rounded down, of the discrete Gaussian of a variance.

    Every product and quotient is rounded down at 2^-320. For m up to 2^14 a ratio is then less than 2^21 such units
    off, a weight less than 2^36, all weights together less than 2^52, and so a probability less than 2^-260.
    """
    # The last magnitude needs no threshold: it is what remains.
    reach = _floor_sqrt(_REACH**2 * variance) + 1
    ratio = _exp_minus(1 / (2 * variance))
    square = (ratio * ratio) >> _POINT
    weight, cumulative, sums = 1 << _POINT, 0, []
    for magnitude in range(reach + 1):
        cumulative += weight if magnitude == 0 else 2 * weight
        sums.append(cumulative)
        weight = (weight * ratio) >> _POINT  # exp(-(m+1)^2 / (2 v)) = exp(-m^2 / (2 v)) exp(-(2 m + 1) / (2 v))
        ratio = (ratio * square) >> _POINT
    return [(value << _DEPTH) // cumulative for value in sums[:-1]]


def _exp_minus(exponent: Fraction) -> int:
    """Return 2^320 exp(-exponent) by its power series, for 0 < exponent < 1; off by fewer units than it has terms."""
    term = total = 1 << _POINT
    index = 0
    while term:
        index += 1
        term = term * exponent.numerator // (exponent.denominator * index)
        total += -term if index % 2 else term
    return total


def _floor_sqrt(value: Fraction) -> int:
    # The floor of a root is that of the floor's root.
    return math.isqrt(value.numerator // value.denominator)
