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
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian
from coterie.privacy.plan import SECURE, Plan, Secure
from coterie.privacy.schedule import trainings
from coterie.privacy.secagg.numbers import Numbers, numbers_for

__all__ = ["HOLDOUT", "TRAINING", "Mechanisms", "Summed", "calibrate", "central_noise"]

TRAINING = "training"
HOLDOUT = "holdout"

_GRAIN = 1000  # noise is rounded up to thousandths
_MOST = 10_000.0  # noise beyond which a plan is refused: nothing is learnt there, and discrete PLDs grow with it
_ROOM = 16  # times the declared customers for which a count has room: what is beyond would be cut off


@dataclass(frozen=True)
class Summed:
    """The whole numbers in which a study's secure sums are made.

    Args:
        update: Of the sum of gradients of one step.
        histogram: Of a sum of histograms; a customer's count is `sensitivity` units.
    """

    update: Numbers
    histogram: Numbers


@dataclass(frozen=True)
class Mechanisms:
    """What one partner's releases of a study are made with.

    Args:
        update: Event of one model update (a round's local steps), or of the secure sum of one step.
        updates: How many updates the study may charge: rounds, or steps, and spare attempts.
        histogram: Event of one score histogram.
        histograms: How many histograms the study may charge.
        summed: The numbers of secure sums; None under another trust.
    """

    update: PoissonGaussian | DistributedGaussian
    updates: int
    histogram: DiscreteGaussian | DistributedGaussian
    histograms: int
    summed: Summed | None = None

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
    counts = (trainings(plan) + training.spare, len(plan.metrics.rounds) + training.spare)
    budgets = (privacy.epsilon * privacy.split.training, privacy.epsilon * privacy.split.metrics)
    if privacy.trust == SECURE:
        return _summed(plan, _least_gaussians(budgets, privacy.delta, rate=training.sample_rate, counts=counts), counts)
    return _calibrate(budgets, privacy.delta, rate=training.sample_rate, steps=training.local_steps, counts=counts)


def central_noise(plan: Plan) -> tuple[int, float]:
    """Return how many gradient sums a plan has, with spare ones, and the noise over the clip if one party added it.

    For comparisons: nobody is charged by it.
    """
    training, privacy = plan.training, plan.privacy
    steps = (training.rounds + training.spare) * training.local_steps
    if privacy.trust == SECURE:
        steps = trainings(plan) + training.spare
    budget = privacy.epsilon * privacy.split.training
    rate, delta = training.sample_rate, privacy.delta
    return training.rounds * training.local_steps, _least_noise(
        lambda n: epsilon([PoissonGaussian(n, rate, steps)], delta), budget
    )


@functools.lru_cache(maxsize=64)
def _calibrate(
    budgets: tuple[float, float], delta: float, *, rate: float, steps: int, counts: tuple[int, int]
) -> Mechanisms:
    updates, histograms = counts
    multiplier = _least_noise(lambda noise: epsilon([PoissonGaussian(noise, rate, steps * updates)], delta), budgets[0])
    sigma = _least_noise(lambda noise: epsilon([DiscreteGaussian(noise, histograms)], delta), budgets[1])
    return Mechanisms(PoissonGaussian(multiplier, rate, steps), updates, DiscreteGaussian(sigma, 1), histograms)


@functools.lru_cache(maxsize=64)
def _least_gaussians(
    budgets: tuple[float, float], delta: float, *, rate: float, counts: tuple[int, int]
) -> tuple[float, float]:
    """Return the noise over the sensitivity that keeps the budgets of gradient sums and of histograms."""
    updates, histograms = counts
    return (
        _least_noise(lambda noise: epsilon([PoissonGaussian(noise, rate, updates)], delta), budgets[0]),
        _least_noise(lambda noise: epsilon([PoissonGaussian(noise, 1.0, histograms)], delta), budgets[1]),
    )


def _summed(plan: Plan, multipliers: tuple[float, float], counts: tuple[int, int]) -> Mechanisms:
    """Turn noise over the sensitivity into whole numbers, which can only add to it."""
    privacy, rate = plan.privacy, plan.training.sample_rate
    shares, partners = privacy.threshold - privacy.colluders, len(plan.partners)
    largest = max(partner.customers for partner in plan.partners)
    cap = (plan.secure or Secure()).batch_cap or math.ceil(2 * rate * largest)
    numbers = [
        numbers_for(multiplier=multiplier, partners=partners, shares=shares, batch_cap=room)
        for multiplier, room in zip(multipliers, (cap, _ROOM * largest), strict=True)
    ]
    update, histogram = numbers
    return Mechanisms(
        DistributedGaussian(update.share, shares, update.sensitivity, rate, 1),
        counts[0],
        DistributedGaussian(histogram.share, shares, histogram.sensitivity, 1.0, 1),
        counts[1],
        Summed(update, histogram),
    )


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
