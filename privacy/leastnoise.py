"""The least noise that keeps a budget, in thousandths: never less than is needed."""

import functools
import math
from collections.abc import Callable

from coterie.privacy.accountant import epsilon
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian

__all__ = ["GRAIN", "gaussian_cost", "least_noise", "least_of_all", "least_sigma"]

GRAIN = 1000  # noise is rounded up to thousandths
_MOST = 10_000.0  # noise beyond which a plan is refused: nothing is learnt there, and discrete PLDs grow with it


@functools.lru_cache(maxsize=64)
def least_of_all(budget: float, delta: float, steps: int) -> float:
    """Return the noise of so many sums over all customers."""
    return least_noise(lambda noise: gaussian_cost(noise, 1.0, steps, delta), budget)


@functools.lru_cache(maxsize=64)
def least_sigma(budget: float, delta: float, histograms: int) -> float:
    """Return the noise of so many histograms of a partner's own."""
    return least_noise(lambda noise: epsilon([DiscreteGaussian(noise, histograms)], delta), budget)


def gaussian_cost(noise: float, rate: float, steps: int, delta: float) -> float:
    """Return the epsilon of so many sums of Gaussian noise, each of a sample of customers at a rate."""
    return epsilon([PoissonGaussian(noise, rate, steps)], delta)


def least_noise(cost: Callable[[float], float], budget: float) -> float:
    """Return the least noise in thousandths whose cost is within budget; cost falls as noise grows."""
    low, high = 0.0, 1.0
    while cost(high) > budget:
        low, high = high, high * 2
        if high > _MOST:
            raise PlanFault(
                Fault(
                    "plan.privacy.epsilon",
                    "is too small for the plan's steps",
                    "ask for fewer, or more epsilon",
                )
            )
    floor, ceiling = math.floor(low * GRAIN), math.ceil(high * GRAIN)
    while ceiling - floor > 1:
        # Below a fifth of the clip no study is private enough to matter, and PLD arrays grow without end.
        middle = (floor + ceiling) // 2
        if middle >= GRAIN // 5 and cost(middle / GRAIN) <= budget:
            ceiling = middle
        else:
            floor = middle
    return ceiling / GRAIN
