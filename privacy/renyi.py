"""The gate across studies: a Rényi filter at one fixed order.

Theorem: Feldman and Zrnic, "Individual Privacy Accounting via a Rényi Filter" (NeurIPS 2021, arXiv
2008.11193): for one order alpha fixed in advance, a sequence of mechanisms chosen fully adaptively, stopped
before the sum of its Rényi divergences of that order would exceed B, satisfies (alpha, B)-Rényi DP.
Conversion: (alpha, B)-RDP implies (epsilon, delta)-DP with
    epsilon = B + log(1 - 1/alpha) - log(delta * alpha) / (alpha - 1)
(Canonne, Kamath, Steinke 2020, proposition 12; Balle et al. 2020).

Assumptions: the order depends on the budget (epsilon, delta) alone, which the policy states before the first
study; a customer is in one group for life, so groups have a filter each and compose in parallel.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian

__all__ = ["ORDERS", "Filter", "conversion", "curve", "total"]

# Whole orders alone: there the sub-sampled divergence is a finite sum, with no series to converge.
ORDERS: tuple[float, ...] = (
    *(2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0, 48.0),
    *(64.0, 96.0, 128.0, 256.0),
)


_NONE = (0.0,) * len(ORDERS)


def curve(events: Iterable[Event]) -> tuple[float, ...]:
    """Return the Rényi divergence bound of `events` at every order of `ORDERS`.

    Sub-sampled Gaussians: Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), through `dp-accounting`.
    Discrete Gaussians: alpha / (2 sigma**2) per vector (Canonne, Kamath, Steinke 2020, theorem 4).
    Distributed Gaussians: those of the Gaussian that costs at least as much (`events.DistributedGaussian`).
    """
    return total([_curve(event) for event in events])


def total(curves: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Return the sum of curves, order by order; of none, zero."""
    summed = list(_NONE)
    for one in curves:
        summed = [a + b for a, b in zip(summed, one, strict=True)]
    return tuple(summed)


@functools.lru_cache(maxsize=256)
def _curve(event: Event) -> tuple[float, ...]:
    if isinstance(event, DistributedGaussian):
        return _curve(event.gaussian)
    if isinstance(event, PoissonGaussian):
        import dp_accounting as dpa  # noqa: PLC0415 - a second of import, only when accounting
        from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415 - likewise

        accountant = RdpAccountant(list(ORDERS))
        single = dpa.PoissonSampledDpEvent(event.sample_rate, dpa.GaussianDpEvent(event.noise_multiplier))
        accountant.compose(single, event.steps)
        return tuple(float(value) for value in accountant.rdp)
    if isinstance(event, DiscreteGaussian):
        return tuple(order * event.count / (2 * event.sigma**2) for order in ORDERS)
    return (0.0,) * len(ORDERS)


def conversion(order: float, delta: float) -> float:
    """Return what turns a Rényi divergence of an order into an epsilon at delta, by adding it (see above)."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


@dataclass(frozen=True)
class Filter:
    """A budget (epsilon, delta) as a capacity at one Rényi order.

    Args:
        epsilon: Budget, above 0.
        delta: In (0, 1).
    """

    epsilon: float
    delta: float

    @functools.cached_property
    def index(self) -> int:
        """Index in `ORDERS` of the fixed order: the one at which a Gaussian's capacity is greatest."""
        shares = [self._capacity(order) / order for order in ORDERS]
        return shares.index(max(shares))

    @functools.cached_property
    def capacity(self) -> float:
        """Greatest sum of divergences at the fixed order; 0 where the budget carries nothing."""
        return max(0.0, self._capacity(ORDERS[self.index]))

    def admits(self, spent: Sequence[float], asked: Sequence[float]) -> bool:
        """Return whether a further curve still fits."""
        return spent[self.index] + asked[self.index] <= self.capacity

    def share(self, spent: Sequence[float]) -> float:
        """Return which part of the capacity is spent, in [0, 1]; unlike epsilons, shares add up."""
        return min(1.0, spent[self.index] / self.capacity) if self.capacity > 0 else 1.0

    def spent_epsilon(self, spent: Sequence[float]) -> float:
        """Return epsilon at the fixed order for what is spent; 0 where nothing is."""
        if spent[self.index] <= 0:
            return 0.0
        return spent[self.index] + self.epsilon - self._capacity(ORDERS[self.index])

    def runs_left(self, spent: Sequence[float], one_run: Sequence[float]) -> int:
        """Return how many more runs with this curve fit."""
        cost = one_run[self.index]
        room = self.capacity - spent[self.index]
        return max(0, math.floor(room / cost)) if cost > 0 else 0

    def _capacity(self, order: float) -> float:
        return self.epsilon - conversion(order, self.delta)
