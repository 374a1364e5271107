"""Rényi divergences a second time, in closed form: no library, no series, no import that takes a second.

Sub-sampled Gaussians at whole orders: Mironov, Talwar, Zhang 2019 (arXiv 1908.10530), section 3.3,
    A(alpha) = sum over k of C(alpha, k) (1-q)^(alpha-k) q^k exp((k^2 - k) / (2 s^2)),
    divergence = log A(alpha) / (alpha - 1).
Without the exponentials the terms add up to 1, so A - 1 is the sum of the same terms with exp(...) - 1, all of
them positive from k = 2 on: small divergences keep all their digits.
"""

import functools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian
from coterie.privacy.renyi import ORDERS, total

__all__ = ["direct_curve", "rho"]


def direct_curve(events: Iterable[Event]) -> tuple[float, ...]:
    """Return the Rényi divergence bound of `events`, in nats, at every order of `renyi.ORDERS`.

    Args:
        events: Their order does not matter.

    Raises:
        TypeError: Something that is no event.

    Guarantees:
        PoissonGaussian: the divergence of add/remove neighbours is at most the module's formula (Mironov,
        Talwar, Zhang 2019, theorems 4 and 5 with section 3.3). DiscreteGaussian: at most alpha / (2 s^2) a
        vector (Canonne, Kamath, Steinke 2020, arXiv 2004.00010, theorem 4). DistributedGaussian: at most that of
        its `gaussian`, by data processing (theorem and proof there). Divergences of composed events add.
    """
    return total([_one(event) for event in events])


def rho(events: Iterable[Event]) -> float | None:
    """Return rho of zero-concentrated differential privacy, or None where sub-sampling leaves none.

    Args:
        events: Their order does not matter.

    Returns:
        In nats an order, at least 0; None as soon as one event is sub-sampled: its divergence is not bounded by
        a line through the origin with the gain of sampling in it.

    Raises:
        TypeError: Something that is no event.

    Guarantees:
        rho-zCDP with rho the sum of 1 / (2 s^2) (Bun and Steinke 2016, arXiv 1605.02065, proposition 1.6 and
        lemma 1.7; Canonne, Kamath, Steinke 2020, theorem 4).
    """
    summed = 0.0
    for event in events:
        if isinstance(event, PoissonGaussian | DistributedGaussian) and event.sample_rate < 1:
            return None
        summed += _one(event)[0] / ORDERS[0]
    return summed


@functools.lru_cache(maxsize=256)
def _one(event: Event) -> tuple[float, ...]:
    if isinstance(event, DistributedGaussian):
        return _one(event.gaussian)
    if isinstance(event, PoissonGaussian):
        if event.sample_rate == 1:
            return tuple(event.steps * order / (2 * event.noise_multiplier**2) for order in ORDERS)
        return tuple(event.steps * _sampled(event.noise_multiplier, event.sample_rate, int(o)) for o in ORDERS)
    if isinstance(event, DiscreteGaussian):
        return tuple(event.count * order / (2 * event.sigma**2) for order in ORDERS)
    if event.kind != "nothing":
        raise TypeError(f"{type(event).__name__} has no Rényi divergence")
    return (0.0,) * len(ORDERS)


def _sampled(sigma: float, rate: float, order: int) -> float:
    """Return one step's divergence at a whole order of at least 2."""
    k = np.arange(2, order + 1)
    gain = (k**2 - k) / (2 * sigma**2)
    # log(exp(gain) - 1), for gains of every size
    terms = gain + np.log(-np.expm1(-gain))
    terms += _log_binomials(order) + (order - k) * math.log1p(-rate) + k * math.log(rate)
    largest = float(terms.max())
    excess = largest + math.log(float(np.exp(terms - largest).sum()))
    return float(np.logaddexp(0.0, excess) if excess > 0 else math.log1p(math.exp(excess))) / (order - 1)


@functools.cache
def _log_binomials(order: int) -> NDArray[np.float64]:
    """Return log C(order, k) for k = 2 ... order."""
    return np.array([math.log(math.comb(order, k)) for k in range(2, order + 1)])
