"""Composition of rounded losses by tilted Fourier transforms, with a bound on everything that is not exact.

Of the composed loss L = sum of rounded losses it is known that the true loss lies in [L + down, L + up]: each
rounding takes away something in [0, h) whose mean is known (`lattice.py`), so T of them take away between 0 and
T h, and, but for probability eta, their mean give or take h sqrt(T log(1/eta) / 2) (Hoeffding 1963, theorem 2; so
used by Gopi, Lee, Wutschitz 2021, arXiv 2106.02848). With g(y) = max(0, 1 - e^(eps - y)), M(theta) =
E e^(theta L), and E' over the law tilted by e^(theta L) / M(theta), where the tail asked for is no tail,
    delta(eps) of L = E g(L) = M(theta) E' [e^(-theta L) g(L)].

What is not exact is bounded, added to what is an upper bound and taken off what is a lower one:
  truncation   probability that a loss is in no cell, once for every step, and eta
  aliasing     tilted mass beyond the window of the cyclic convolution, by Chernoff's bound at two further tilts
  round-off    a transform errs by at most 16 u log2(n) of the l1 norm in each frequency (twice what Higham,
               "Accuracy and Stability of Numerical Algorithms", section 24.1, gives for radix 2), which is raised
               to the T with the law's own spectrum and enters delta by Cauchy and Schwarz.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.review.lattice import UNIT_ROUND_OFF, Lattice

__all__ = ["Parts", "Plan", "Tail", "least", "moved", "planned", "spread", "tail"]

_ALIASED = 1e-7  # tilted mass that may lie beyond either end of the window
_CELLS = 2**22  # most cells of a grid
_NEGLIGIBLE = -60.0  # logarithm of amplitudes that are left out, and counted as error

Floats = NDArray[np.float64]
Parts = Sequence[tuple[Lattice, int]]


@dataclass(frozen=True)
class Plan:
    """Where to look.

    Args:
        tilt: theta, above 0.
        window: Least and greatest composed loss of the cyclic convolution, in nats.
        beyond: Tilts, relative to theta, that bound what lies below (negative) and above the window.
        step: Width of a cell in nats, a power of two.
        grain: eta.
    """

    tilt: float
    window: tuple[float, float]
    beyond: tuple[float, float]
    step: float
    grain: float


@dataclass(frozen=True)
class Tail:
    """A stretch of delta as a function of epsilon.

    Args:
        losses: Evenly spaced, rising, in nats.
        above: Upper bound on the true delta at losses + up.
        below: Lower bound on the true delta at losses + down; may be negative.
        down: Least that rounding took away, in nats.
        up: Most that rounding took away, in nats.
    """

    losses: Floats
    above: Floats
    below: Floats
    down: float
    up: float


def moved(parts: Parts, tilt: float) -> float:
    """Return about log E e^(tilt Y) of the composed loss Y: that of the rounded loss, moved by the mean rounding."""
    return _cumulant(parts, tilt) + tilt * _taken(parts)[0]


def spread(parts: Parts) -> float:
    """Return the standard deviation of the composed rounded loss, in nats."""
    variance = 0.0
    for part, times in parts:
        mean = float(part.mass @ part.losses)
        variance += times * float(part.mass @ (part.losses - mean) ** 2)
    return math.sqrt(variance)


def least(cost: Callable[[float], float]) -> tuple[float, float]:
    """Return where in [1e-4, 1e7] a function is least that falls and then rises, and its value there."""
    golden = (math.sqrt(5) - 1) / 2
    low, high = math.log(1e-4), math.log(1e7)
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = cost(math.exp(left)), cost(math.exp(right))
    for _ in range(25):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = cost(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = cost(math.exp(right))
    return (math.exp(left), at_left) if at_left <= at_right else (math.exp(right), at_right)


def planned(parts: Parts, tilt: float, reached: float, *, wanted: float, grain: float) -> Plan:
    """Choose window and width by lattices of any width; nothing here has to be right for the bounds to hold.

    Args:
        parts: Lattices with how often each composes.
        tilt: theta.
        reached: A loss that the window must hold, in nats.
        wanted: How far apart the bounds on the true loss may be, in nats.
        grain: eta.
    """
    here, room = moved(parts, tilt), -math.log(_ALIASED)
    upward, top = least(lambda s: (moved(parts, tilt + s) - here + room) / s)
    downward, bottom = least(lambda s: (moved(parts, tilt - s) - here + room) / s)
    window = min(-bottom, reached - wanted), max(top, reached + wanted)
    times = sum(count for _, count in parts)
    width = wanted / (min(times, math.sqrt(-2 * times * math.log(grain))) + 2)
    widest = max(window[1] - window[0], *(len(part.mass) * part.step for part, _ in parts))
    step = 2.0 ** math.floor(math.log2(max(width, 2 * widest / _CELLS)))
    return Plan(tilt, window, (-downward, upward), step, grain)


def tail(parts: Parts, plan: Plan) -> Tail:
    """Return bounds on delta over the plan's window.

    Args:
        parts: Lattices of the plan's width with how often each composes.
        plan: Any; a poor one gives bounds that are far apart, never wrong ones.

    Guarantees:
        delta(losses[k] + up) <= above[k] and delta(losses[k] + down) >= below[k]: the module's equations.
    """
    least_taken, most_taken = _taken(parts)
    times = sum(count for _, count in parts)
    strayed = plan.step * math.sqrt(-times * math.log(plan.grain) / 2)
    furthest = max(float(np.abs(part.losses[[0, -1]]).max()) for part, _ in parts)
    slack = 8 * UNIT_ROUND_OFF * times * furthest
    down = max(0.0, least_taken - strayed) - slack
    up = min(times * plan.step, most_taken + strayed) + slack
    lost = plan.grain + sum(count * part.lost for part, count in parts)

    first = math.floor((plan.window[0] - most_taken) / plan.step)
    size = _fast(math.ceil((plan.window[1] - plan.window[0]) / plan.step) + 2)
    losses = np.arange(first, first + size, dtype=np.float64) * plan.step
    law, noise = _convolved(parts, plan.tilt, size)
    law = np.roll(law, -(first % size))

    whole = _cumulant(parts, plan.tilt)
    scale = np.exp(np.minimum(whole - plan.tilt * losses, 700.0))
    weights = law * scale
    beyond, damped = _after(weights), _after(weights * np.exp(losses[0] - losses))
    found = beyond - np.exp(losses - losses[0]) * damped
    under, over = (_beyond(parts, plan, end, whole) for end in ((0, losses[0]), (1, losses[-1])))
    relative = 8 * UNIT_ROUND_OFF * (abs(whole) + plan.tilt * float(np.abs(losses[[0, -1]]).max()))
    relative += 8 * UNIT_ROUND_OFF * times * (1 + plan.tilt * furthest) + 4 * UNIT_ROUND_OFF * size
    noise *= min(math.sqrt(size), 1 / math.sqrt(-math.expm1(-2 * plan.tilt * plan.step)))
    doubt = scale * noise + relative * beyond
    return Tail(
        losses, found + doubt + scale[-1] * over + lost, found - doubt - scale * (under + over) - lost, down, up
    )


def _after(values: Floats) -> Floats:
    """Return for every place the sum of what comes after it."""
    return np.append(np.cumsum(values[:0:-1])[::-1], 0.0)


def _taken(parts: Parts) -> tuple[float, float]:
    """Return bounds on the mean of what all roundings take away, in nats."""
    return (
        sum(count * part.least for part, count in parts),
        sum(count * part.most for part, count in parts),
    )


def _beyond(parts: Parts, plan: Plan, end: tuple[int, float], whole: float) -> float:
    """Bound the tilted mass beyond one end of the window (Chernoff)."""
    which, loss = end
    further = plan.beyond[which]
    exponent = _cumulant(parts, plan.tilt + further) - whole - further * loss
    return math.exp(min(0.0, exponent + 1e-9))


def _cumulant(parts: Parts, tilt: float) -> float:
    """Return log E e^(tilt L) of the composed rounded loss L."""
    return sum(times * _log_moment(part, tilt) for part, times in parts)


def _log_moment(part: Lattice, tilt: float) -> float:
    heaviest = max(tilt * part.losses[0], tilt * part.losses[-1])
    return float(heaviest + math.log(part.mass @ np.exp(tilt * part.losses - heaviest)))


def _convolved(parts: Parts, tilt: float, size: int) -> tuple[Floats, float]:
    """Return the tilted law of the composed loss, cyclic, and a bound on the l2 norm of its error."""
    spectra, logarithm = [], np.zeros(size // 2 + 1)
    error = 16 * UNIT_ROUND_OFF * math.log2(size)
    times, faintest = 0, np.ones(size // 2 + 1)
    for part, count in parts:
        tilted = part.mass * np.exp(tilt * part.losses - _log_moment(part, tilt))
        places = np.arange(part.first, part.first + len(tilted)) % size
        spectrum = np.fft.rfft(np.bincount(places, weights=tilted, minlength=size))
        amplitude = np.abs(spectrum) + error
        logarithm += count * np.log(amplitude)
        faintest = np.minimum(faintest, amplitude)
        spectra.append((spectrum, count))
        times += count
    kept = logarithm > _NEGLIGIBLE
    product = np.zeros(len(logarithm), dtype=np.complex128)
    product[kept] = 1.0
    for spectrum, count in spectra:
        product[kept] *= _power(spectrum[kept], count)
    # |prod F^T - prod (F + e)^T| <= T e (|F| + e)^(T-1), and a product of T factors rounds T times.
    share = np.where(kept, times * (error / faintest + 4 * UNIT_ROUND_OFF), 1.0)
    wrong = math.sqrt(2 * float(((np.exp(logarithm) * share) ** 2).sum()) / size)
    law = np.maximum(np.fft.irfft(product, size), 0.0)
    return law, wrong + error * (float(np.linalg.norm(law)) + wrong)


def _power(base: NDArray[np.complex128], exponent: int) -> NDArray[np.complex128]:
    """Return a power by repeated squaring, whose rounding is that of `exponent` multiplications at most."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base
        exponent >>= 1
        if exponent:
            base = base * base
    return result


def _fast(size: int) -> int:
    """Return a power of two, or three quarters of one, of at least `size`."""
    whole = 1 << max(3, (size - 1).bit_length())
    return whole * 3 // 4 if whole * 3 // 4 >= size else whole
