"""One event's privacy loss as masses on an even grid, each loss rounded down to it.

The privacy loss of a pair (P, Q) of output distributions is Y = log P(x)/Q(x) with x drawn from P. An event is
given by its pair (DESIGN section 9, in units of the clip):
    remove a customer     P = (1-q) N(0, s^2) + q N(1, s^2),  Q = N(0, s^2)
    add a customer        the same with P and Q exchanged
    replace a customer    P = (1-q) N(0, s^2) + q N(1, s^2),  Q = (1-q) N(0, s^2) + q N(-1, s^2)
    a noisy count         P(x) proportional to exp(-x^2 / (2 s^2)) on the integers, Q(x) = P(x - 1)
The first two dominate every pair of neighbours (Zhu, Dong, Wang 2022, arXiv 2106.08567, theorem 11). The third
is the pair that `dp-accounting` uses (`AdditiveNoisePrivacyLoss`, adjacency REPLACE); that it dominates is taken
from there and not proved here, so agreement on it is agreement on the arithmetic. A replaced customer leaves one
noisy count and enters another: two independent losses of the fourth kind. A secure sum is no kind of its own here: it
is reckoned as the Gaussian that costs at least as much (`events.copies_of`), before it comes to a lattice.

Losses of Gaussians are monotone in x, so a cell's mass is a difference of normal distribution functions.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.accountant import ADD_REMOVE, REPLACE_ONE
from coterie.privacy.events import DiscreteGaussian, Event, PoissonGaussian

__all__ = ["UNIT_ROUND_OFF", "Lattice", "lattices", "span"]

UNIT_ROUND_OFF = 2.0**-53

_LEAST = 1e-290  # masses below are too close to underflow for their quotient to be used

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lattice:
    """The law of one loss Y rounded down to a multiple of `step`.

    Args:
        first: Whole number; cell i holds the losses from (first + i) * step up to the next multiple.
        step: Width of a cell in nats, a power of two, so that multiples of it are exact.
        mass: Probability under P of every cell.
        lost: Upper bound on the probability under P of a loss in no cell, in [0, 1].
        least: Lower bound on the mean of what rounding down takes away, given that the loss is in a cell.
        most: Upper bound on the same mean; both in [0, step].
    """

    first: int
    step: float
    mass: Floats
    lost: float
    least: float
    most: float

    @functools.cached_property
    def losses(self) -> Floats:
        """Rounded losses, in nats, one a cell."""
        return np.arange(self.first, self.first + len(self.mass), dtype=np.float64) * self.step


@functools.lru_cache(maxsize=16)
def lattices(event: Event, relation: str, step: float, reach: int) -> tuple[Lattice, Lattice]:
    """Return the rounded losses of one step of an event in both directions.

    Args:
        event: With one step or count.
        relation: `ADD_REMOVE` or `REPLACE_ONE`. A noisy count has one law for both: see the module.
        step: Width of a cell in nats, a power of two.
        reach: How many standard deviations of the noise the cells cover, at least 3.

    Returns:
        The customer removed, and the customer added; the same one twice where they do not differ.

    Raises:
        KeyError: An unknown relation.
        TypeError: An event that has no privacy loss.
    """
    if relation not in (ADD_REMOVE, REPLACE_ONE):
        raise KeyError(relation)
    if isinstance(event, DiscreteGaussian):
        count = _count(event.sigma, step, reach)
        return count, count
    if not isinstance(event, PoissonGaussian):
        raise TypeError(f"{type(event).__name__} has no privacy loss")
    if relation == REPLACE_ONE:
        replaced = _replaced(event, step, reach)
        return replaced, replaced
    return _sampled(event, step, reach)


def span(event: Event, relation: str, reach: int) -> float:
    """Return how widely the losses of one step spread that `lattices` puts on cells, in nats.

    Args:
        event: With one step or count.
        relation: As in `lattices`.
        reach: As in `lattices`.
    """
    if isinstance(event, PoissonGaussian):
        low, high = _ends(event, relation, reach)
        return high - low
    return 2 * reach / event.sigma if isinstance(event, DiscreteGaussian) else 0.0


def _sampled(event: PoissonGaussian, step: float, reach: int) -> tuple[Lattice, Lattice]:
    """Add and remove: y = log(1-q + q exp((2x-1)/(2 s^2))) rises with x, so cells in y are intervals in x."""
    sigma, rate = event.noise_multiplier, event.sample_rate
    first, edges = _edges(event, ADD_REMOVE, step, reach)
    if rate < 1:
        absent = math.log1p(-rate)
        # e^y - (1-q) = (1-q)(e^z - 1) with z = y - log(1-q), written so that no digits cancel.
        z = np.maximum(edges - absent, 0.0)
        with np.errstate(divide="ignore"):
            x = sigma**2 * (z + np.log(-np.expm1(-z)) + absent - math.log(rate)) + 0.5
    else:
        x = sigma**2 * edges + 0.5
    without, lost_without = _normal(x, 0.0, sigma)
    present, lost_present = _normal(x, 1.0, sigma)
    mixed, lost_mixed = (1 - rate) * without + rate * present, (1 - rate) * lost_without + rate * lost_present
    removed = _lattice(first, step, (mixed, without), lost_mixed)
    if rate == 1:  # reflecting x at 1/2 exchanges P and Q
        return removed, removed
    # Exchanging P and Q negates the loss: cell k becomes cell -k - 1.
    added = _lattice(-first - len(mixed), step, (without[::-1], mixed[::-1]), lost_without)
    return removed, added


def _replaced(event: PoissonGaussian, step: float, reach: int) -> Lattice:
    """Replace: the loss inverts to x = s^2 (y/2 + arsinh(a sinh(y/2))), a = exp(1/(2 s^2)) (1-q)/q; symmetric."""
    sigma, rate = event.noise_multiplier, event.sample_rate
    first, edges = _edges(event, REPLACE_ONE, step, reach)
    if rate < 1:
        # arsinh(a sinh(y/2)) for every size of a: log(a sinh + sqrt((a sinh)^2 + 1)) in logarithms
        half, absent = np.abs(edges) / 2, math.log1p(-rate)
        with np.errstate(divide="ignore"):
            scaled = 1 / (2 * sigma**2) + absent - math.log(rate) + half + np.log(-np.expm1(-2 * half)) - math.log(2)
        grown = np.where(scaled < 300, np.arcsinh(np.exp(np.minimum(scaled, 300))), scaled + math.log(2))
        x = sigma**2 * (edges / 2 + np.sign(edges) * grown)
    else:
        x = sigma**2 * edges / 2
    (middle, lost_middle), (up, lost_up), (down, _) = (_normal(x, centre, sigma) for centre in (0.0, 1.0, -1.0))
    masses = (1 - rate) * middle + rate * up, (1 - rate) * middle + rate * down
    return _lattice(first, step, masses, (1 - rate) * lost_middle + rate * lost_up)


def _count(sigma: float, step: float, reach: int) -> Lattice:
    """A noisy count: the loss at x is (1 - 2x) / (2 s^2), so every lattice point has one exact loss."""
    furthest = math.ceil(reach * sigma) + 1
    x = np.arange(-furthest, furthest + 1, dtype=np.float64)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    # Beyond R: sum over j >= 1 of exp(-(R+j)^2/(2 s^2)) <= exp(-R^2/(2 s^2)) / (exp(R/s^2) - 1), on both sides.
    tail = 2 * weights[0] / np.expm1(min(furthest / sigma**2, 700.0)) / weights.sum()
    masses = weights / weights.sum() / (1 + tail)
    losses = (1 - 2 * x) / (2 * sigma**2)
    cells = np.floor(losses / step).astype(np.int64)
    first = int(cells.min())
    taken = float(np.average(losses - cells * step, weights=masses))
    slack = 4 * UNIT_ROUND_OFF * (len(x) + float(np.abs(losses).max()))
    # Twice the tail: once for what is lost, once for the masses being divided by a bound of their sum.
    return Lattice(
        first,
        step,
        np.asarray(np.bincount(cells - first, weights=masses), dtype=np.float64),
        2 * float(tail),
        max(0.0, taken - slack),
        min(step, taken + slack),
    )


def _edges(event: PoissonGaussian, relation: str, step: float, reach: int) -> tuple[int, Floats]:
    low, high = _ends(event, relation, reach)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first, np.arange(first, last + 1, dtype=np.float64) * step


def _ends(event: PoissonGaussian, relation: str, reach: int) -> tuple[float, float]:
    """Return the losses at both ends of what `reach` covers of P, and of Q where they are exchanged."""
    sigma, rate = event.noise_multiplier, event.sample_rate
    absent, there = math.log1p(-rate) if rate < 1 else -math.inf, math.log(rate)

    def ratio(x: float) -> float:
        """Return the density of a mixture with a Gaussian around 1 over that of N(0, s^2), in logarithm."""
        return float(np.logaddexp(absent, there + (2 * x - 1) / (2 * sigma**2)))

    far = reach * sigma
    if relation == ADD_REMOVE:
        return ratio(-far), ratio(1 + far)
    widest = ratio(1 + far) - ratio(-1 - far)
    return -widest, widest


def _normal(x: Floats, centre: float, sigma: float) -> tuple[Floats, float]:
    """Return the mass of N(centre, sigma^2) between neighbouring x, and outside; no digits cancel in the tails."""
    scaled = (x - centre) / (sigma * math.sqrt(2))
    tails = 0.5 * np.fromiter(map(math.erfc, np.abs(scaled).tolist()), np.float64, len(x))
    left = scaled < 0
    cells = np.abs(np.diff(tails))
    across = left[:-1] & ~left[1:]
    cells[across] = 1 - tails[:-1][across] - tails[1:][across]
    below = tails[0] if left[0] else 1 - tails[0]
    above = 1 - tails[-1] if left[-1] else tails[-1]
    return cells, float(below + above)


def _lattice(first: int, step: float, masses: tuple[Floats, Floats], lost: float) -> Lattice:
    """Bound what rounding down takes away from the two masses of every cell.

    In a cell [a, a + h) let w = e^a Q(cell)/P(cell), the mean of exp(a - Y) given the cell. As -log is convex,
    -log w <= mean of Y - a <= h (1 - w)/(1 - e^-h): Jensen's inequality and its chord, h^2/8 apart at most.
    """
    p, q = masses
    lattice = Lattice(first, step, p, lost, 0.0, step)
    sound = (p > _LEAST) & (q > _LEAST)
    with np.errstate(over="ignore"):
        w = np.clip(q[sound] / p[sound] * np.exp(np.minimum(lattice.losses[sound], 700.0)), math.exp(-step), 1.0)
    known = float(p[sound].sum())
    least = float(p[sound] @ -np.log(w)) / known
    most = float(p[sound] @ (1 - w)) * step / -math.expm1(-step) / known
    # A cell's masses are differences of distribution functions that are right to a few units of round-off.
    slack = 4 * UNIT_ROUND_OFF * (len(p) + float(np.abs(lattice.losses).max()))
    unsound = step * float(p[~sound].sum()) / known
    return Lattice(first, step, p, lost, max(0.0, least - slack - unsound), min(step, most + slack + unsound))
