"""Exact discrete Gaussian noise for counts.

Source: Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (NeurIPS 2020,
arXiv 2004.00010), algorithms 1 to 3. All arithmetic is on whole numbers and fractions, so no floating-point
rounding can tell a count from its neighbour (Mironov 2012).
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.randomness import Stream

__all__ = ["discrete_gaussians"]


def discrete_gaussians(sigma: float, count: int, stream: Stream) -> NDArray[np.int64]:
    """Draw from the discrete Gaussian: P(x) proportional to exp(-x**2 / (2 sigma**2)) on the integers.

    Args:
        sigma: Scale, a multiple of 0.001, above 0.
        count: How many independent draws.
        stream: Secret randomness.

    Returns:
        Whole numbers, shape (count,).

    Guarantees:
        Added to a vector of counts in which one customer changes one count by 1, it satisfies
        1/(2 sigma**2)-zero-concentrated differential privacy (theorem 4 with corollary 5 there).
    """
    # Calibration rounds to thousandths, upwards, so this fraction is exact and small.
    variance = Fraction(round(sigma * 1000), 1000) ** 2
    return np.array([_discrete_gaussian(variance, stream) for _ in range(count)], dtype=np.int64)


def _discrete_gaussian(variance: Fraction, stream: Stream) -> int:
    """Algorithm 3."""
    scale = _floor_sqrt(variance) + 1
    while True:
        draw = _discrete_laplace(scale, stream)
        if _bernoulli_exp((abs(draw) - variance / scale) ** 2 / (2 * variance), stream):
            return draw


def _discrete_laplace(scale: int, stream: Stream) -> int:
    """Algorithm 2 with s = 1: P(x) proportional to exp(-|x| / scale)."""
    while True:
        remainder = stream.below(scale)
        if not _bernoulli_exp(Fraction(remainder, scale), stream):
            continue
        multiple = 0
        while _bernoulli_exp(Fraction(1), stream):
            multiple += 1
        magnitude = remainder + scale * multiple
        negative = stream.below(2) == 1
        if negative and magnitude == 0:
            continue
        return -magnitude if negative else magnitude


def _bernoulli_exp(gamma: Fraction, stream: Stream) -> bool:
    """Algorithm 1: true with probability exp(-gamma), for gamma >= 0."""
    while gamma > 1:
        if not _bernoulli_exp(Fraction(1), stream):
            return False
        gamma -= 1
    k = 1
    while stream.below(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def _floor_sqrt(value: Fraction) -> int:
    root = int(float(value) ** 0.5)
    while Fraction(root) ** 2 > value:
        root -= 1
    while Fraction(root + 1) ** 2 <= value:
        root += 1
    return root
