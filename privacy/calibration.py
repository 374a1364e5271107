"""From a plan's budget to its mechanisms: the noise that spends it, never less.

The whole composition of a study is fixed here, before it starts; that is what makes PLD composition valid
inside the study.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from coterie.privacy.accountant import epsilon
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import DiscreteGaussian, Event, PoissonGaussian
from coterie.privacy.plan import Plan

__all__ = ["HOLDOUT", "TRAINING", "Mechanisms", "calibrate"]

TRAINING = "training"
HOLDOUT = "holdout"

_GRAIN = 1000  # noise is rounded up to thousandths
_MOST = 10_000.0  # noise beyond which a plan is refused: nothing is learnt there, and discrete PLDs grow with it


@dataclass(frozen=True)
class Mechanisms:
    """What one partner's releases of a study are made with.

    Args:
        update: Event of one model update (a round's local steps).
        updates: How many updates the study may charge: rounds and spare attempts.
        histogram: Event of one score histogram.
        histograms: How many histograms the study may charge.
    """

    update: PoissonGaussian
    updates: int
    histogram: DiscreteGaussian
    histograms: int

    def events(self, group: str) -> tuple[Event, ...]:
        """Return all that the study may release about one customer of `group`."""
        if group == TRAINING:
            return (self.update,) * self.updates
        return (self.histogram,) * self.histograms


def calibrate(plan: Plan) -> Mechanisms:
    """Find the least noise, in thousandths, at which the study keeps its budget.

    Args:
        plan: Its epsilon, delta, split, rates and rounds.

    Raises:
        PlanFault: No reasonable noise keeps the budget.

    Guarantees:
        epsilon(events of a group, plan's delta) <= plan's epsilon times the group's share.
    """
    training, privacy = plan.training, plan.privacy
    updates = training.rounds + training.spare
    histograms = len(plan.metrics.rounds) + training.spare
    return _calibrate(
        (privacy.epsilon * privacy.split.training, privacy.epsilon * privacy.split.metrics),
        privacy.delta,
        rate=training.sample_rate,
        steps=training.local_steps,
        counts=(updates, histograms),
    )


@functools.lru_cache(maxsize=64)
def _calibrate(
    budgets: tuple[float, float], delta: float, *, rate: float, steps: int, counts: tuple[int, int]
) -> Mechanisms:
    updates, histograms = counts
    multiplier = _least_noise(lambda noise: epsilon([PoissonGaussian(noise, rate, steps * updates)], delta), budgets[0])
    sigma = _least_noise(lambda noise: epsilon([DiscreteGaussian(noise, histograms)], delta), budgets[1])
    return Mechanisms(PoissonGaussian(multiplier, rate, steps), updates, DiscreteGaussian(sigma, 1), histograms)


def _least_noise(cost: Callable[[float], float], budget: float) -> float:
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
    floor, ceiling = math.floor(low * _GRAIN), math.ceil(high * _GRAIN)
    while ceiling - floor > 1:
        # Below a fifth of the clip no study is private enough to matter, and PLD arrays grow without end.
        middle = (floor + ceiling) // 2
        if middle >= _GRAIN // 5 and cost(middle / _GRAIN) <= budget:
            ceiling = middle
        else:
            floor = middle
    return ceiling / _GRAIN
