"""From a plan's budget to its mechanisms: the noise that spends it, never less.

The whole composition of a study is fixed here, before it starts; that is what makes PLD composition valid
inside the study.
"""

import functools
import math
from dataclasses import dataclass

from coterie.privacy.accountant import epsilon
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian
from coterie.privacy.leastnoise import GRAIN, gaussian_cost, least_noise, least_of_all, least_sigma
from coterie.privacy.plan import COUNTS, SECURE, Bins, Plan, Recommendation, Secure
from coterie.privacy.schedule import countings, trainings
from coterie.privacy.secagg.numbers import Numbers, greatest_norm, numbers_for

__all__ = ["HOLDOUT", "NO_HISTOGRAM", "NO_UPDATE", "TRAINING", "Mechanisms", "Summed", "calibrate", "least_pair"]

TRAINING = "training"
HOLDOUT = "holdout"

NO_UPDATE, NO_HISTOGRAM = PoissonGaussian(10_000.0, 1.0, 1), DiscreteGaussian(10_000.0, 1)
"""What stands where a plan has none: how many may be charged is beside it, and is 0."""

_ROOM = 16  # times the declared customers for which a count has room: what is beyond would be cut off


@dataclass(frozen=True)
class Summed:
    """The whole numbers in which a study's secure sums are made.

    Args:
        update: Of the sum of gradients, or of statistics, of one step.
        histogram: Of a sum of histograms; a customer's count is `sensitivity` units. None where partners release
            histograms of their own.
        count: Of the sum of items' popularity; None where there is none.
    """

    update: Numbers
    histogram: Numbers | None
    count: Numbers | None = None


@dataclass(frozen=True)
class Mechanisms:
    """What one partner's releases of a study are made with.

    Args:
        update: Event of one model update (a round's local steps), or of the secure sum of one step.
        updates: How many updates the study may charge: rounds, or steps, and spare attempts.
        histogram: Event of one score histogram.
        histograms: How many histograms the study may charge.
        summed: The numbers of sums; None where updates are none.
        counting: Event of the sum of items' popularity, or of cells; None where there is none.
        countings: How many such sums the study may charge.
        overlap: Event of a list of identifiers for a match that is counted, with its dummies; it touches both groups.
        overlaps: How many such lists the study may charge.
    """

    update: PoissonGaussian | DistributedGaussian
    updates: int
    histogram: DiscreteGaussian | DistributedGaussian
    histograms: int
    summed: Summed | None = None
    counting: PoissonGaussian | DistributedGaussian | None = None
    countings: int = 0
    overlap: DiscreteGaussian | None = None
    overlaps: int = 0

    def kinds(self, group: str) -> tuple[tuple[Event, int], ...]:
        """Return the events of which the study may charge some to a customer of `group`, each with how many."""
        matched: tuple[tuple[Event, int], ...] = ((self.overlap, self.overlaps),) if self.overlap else ()
        if group == HOLDOUT:
            return (*matched, (self.histogram, self.histograms))
        counted: tuple[tuple[Event, int], ...] = ((self.counting, self.countings),) if self.counting else ()
        return (*matched, *counted, (self.update, self.updates))

    def events(self, group: str) -> tuple[Event, ...]:
        """Return all that the study may release about one customer of `group`."""
        return tuple(event for event, count in self.kinds(group) for _ in range(count))


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
    if plan.matches:
        return _matched(plan)
    counts = (trainings(plan) + training.spare, len(plan.metrics.rounds) + training.spare)
    budgets = (privacy.epsilon * privacy.split.training, privacy.epsilon * privacy.split.metrics)
    if plan.recommends or plan.bins is not None:
        return _makeable(plan, _counted_first(plan, budgets, counts))
    if privacy.trust == SECURE:
        return _summed(plan, _least_gaussians(budgets, privacy.delta, rate=training.sample_rate, counts=counts), counts)
    return _calibrate(budgets, privacy.delta, rate=training.sample_rate, steps=training.local_steps, counts=counts)


def _matched(plan: Plan) -> Mechanisms:
    """Return the mechanisms of a match: all of epsilon for the counts, and nothing for what no epsilon covers."""
    if plan.matching is None or plan.matching.outcome != COUNTS:
        return Mechanisms(NO_UPDATE, 0, NO_HISTOGRAM, 0)
    lists = 1 + plan.training.spare
    sigma = least_sigma(plan.privacy.epsilon, plan.privacy.delta, lists)
    return Mechanisms(NO_UPDATE, 0, NO_HISTOGRAM, 0, overlap=DiscreteGaussian(sigma, 1), overlaps=lists)


@functools.lru_cache(maxsize=64)
def _calibrate(
    budgets: tuple[float, float], delta: float, *, rate: float, steps: int, counts: tuple[int, int]
) -> Mechanisms:
    updates, histograms = counts
    multiplier = least_noise(lambda noise: epsilon([PoissonGaussian(noise, rate, steps * updates)], delta), budgets[0])
    sigma = least_sigma(budgets[1], delta, histograms)
    return Mechanisms(PoissonGaussian(multiplier, rate, steps), updates, DiscreteGaussian(sigma, 1), histograms)


@functools.lru_cache(maxsize=64)
def _least_gaussians(
    budgets: tuple[float, float], delta: float, *, rate: float, counts: tuple[int, int]
) -> tuple[float, float]:
    """Return the noise over the sensitivity that keeps the budgets of gradient sums and of histograms."""
    updates, histograms = counts
    return (
        least_noise(lambda noise: epsilon([PoissonGaussian(noise, rate, updates)], delta), budgets[0]),
        least_noise(lambda noise: epsilon([PoissonGaussian(noise, 1.0, histograms)], delta), budgets[1]),
    )


def _makeable(plan: Plan, made: Mechanisms) -> Mechanisms:
    """Refuse, before anything is charged, sums whose whole numbers could not be made.

    Raises:
        PlanFault: A customer's vector has so many coordinates that rounding would take too much of its bound.
    """
    wrong = made.counting is not None and not made.counting.valid()
    for numbers, coordinates in zip(_summed_numbers(made), _coordinates(plan), strict=True):
        try:
            greatest_norm(numbers.sensitivity // plan.parts, coordinates)
        except ValueError:
            wrong = True
    if wrong or not made.update.valid():
        rule = "leads to sums that whole numbers of this size cannot hold"
        fix = "ask for fewer items of a customer, a smaller dimension or fewer partners_per_person"
        if not plan.recommends:
            fix = "ask for fewer columns, bins or hidden units, or fewer rows of a customer"
        raise PlanFault(Fault("plan.model", rule, fix))
    return made


def _coordinates(plan: Plan) -> tuple[int, int]:
    """Return how many coordinates of a customer's vector may be other than 0: in the family's sums, in popularity's."""
    rows, catalogue, how = plan.contract.interactions, plan.catalogue, plan.recommendation or Recommendation()
    if plan.bins is not None:
        return _bin_coordinates(plan, plan.bins)
    if rows is None or catalogue is None:
        return 1, 1
    most, items, size = rows.most, catalogue.items, how.dimension
    family = {
        "popularity": items,
        "item-gram": most * (most + 1) // 2,
        "ials": (most + 1) * size * (size + 3) // 2,
    }
    # Of a trained family at most: two tables, and layers on embeddings and attributes.
    trained = 2 * (most + min(how.negatives, items)) * size + 8 * size * (size + 1) + catalogue.attributes * size
    return family.get(plan.model.family, trained), items


def _bin_coordinates(plan: Plan, bins: Bins) -> tuple[int, int]:
    """Return the same for sums on bins, where a row counts in one cell, or slot, of every column and pair."""
    active = len(plan.contract.features) + len(bins.pairs)
    rows, counted = plan.contract.rows_per_customer, len(plan.contract.features)
    # A customer's part is made of its rows' parts, each rounded towards zero: no row may be lost in that.
    steps = (active + 1) * rows**2
    if plan.model.family != "additive":
        slots = sum(len(c.values) or len(c.atoms) + bins.most for c in plan.contract.features) + active * 64
        steps = (slots + 1) * (plan.model.hidden + 1 if plan.model.family == "mlp" else 1)
    return steps, counted * rows**2


def _summed_numbers(made: Mechanisms) -> tuple[Numbers, ...]:
    """Return the numbers of the sums of training, that of popularity last."""
    if made.summed is None:
        return ()
    return (made.summed.update, made.summed.count or made.summed.update)


def _counted_first(plan: Plan, budgets: tuple[float, float], counts: tuple[int, int]) -> Mechanisms:
    """Return the mechanisms of sums, of counts before all others: every partner's own, or opened among all."""
    privacy, rate, spare = plan.privacy, plan.training.sample_rate, plan.training.spare
    counted = countings(plan) + spare if countings(plan) else 0
    counting, update = least_pair(budgets[0], privacy.delta, rate=rate, counts=(counted, counts[0]), share=_share(plan))
    if privacy.trust == SECURE:
        histogram = least_of_all(budgets[1], privacy.delta, counts[1])
        return _summed(plan, (update, histogram), counts, (counting, counted))
    sigma = least_sigma(budgets[1], privacy.delta, counts[1])
    largest = max(partner.customers for partner in plan.partners)
    rooms = ((plan.secure or Secure()).batch_cap or math.ceil(2 * rate * largest), 2 * largest)
    made = [
        numbers_for(multiplier=multiplier, partners=1, shares=1, batch_cap=room)
        for multiplier, room in zip((update, counting or update), rooms, strict=True)
    ]
    return Mechanisms(
        PoissonGaussian(update, rate, 1),
        counts[0],
        DiscreteGaussian(sigma, 1),
        counts[1],
        Summed(made[0], None, made[1] if counted else None),
        PoissonGaussian(counting, 1.0, 1) if counted else None,
        counted,
    )


def _share(plan: Plan) -> float:
    """Return the share of the training budget that is for counting first."""
    return plan.bins.counts if plan.bins is not None else (plan.recommendation or Recommendation()).counts


@functools.lru_cache(maxsize=64)
def least_pair(
    budget: float, delta: float, *, rate: float, counts: tuple[int, int], share: float
) -> tuple[float, float]:
    """Return the noise of sums that count first and of the others: a share of the budget for the first, then all else.

    The share is one of squared multipliers, which is exact for Gaussians over all customers (Dong, Roth and Su 2022,
    corollary 3.3); for the others it is where the search begins, and the accountant has the last word.

    Args:
        budget: Epsilon for both.
        delta: Delta of it.
        rate: Poisson rate of the others; counts are over all customers.
        counts: How many sums there are of either.
        share: In (0, 1), for the first.

    Raises:
        PlanFault: The share leaves too little for counting.
    """
    counted, updates = counts
    if not counted:
        return 0.0, least_noise(lambda noise: gaussian_cost(noise, rate, updates, delta), budget)
    first = least_noise(lambda noise: gaussian_cost(noise, 1.0, counted, delta), budget) / math.sqrt(share)
    counting = PoissonGaussian(math.ceil(first * GRAIN) / GRAIN, 1.0, counted)
    if not counting.valid():  # a ledger that held it could not be read any more
        fix = "raise it, or ask for more epsilon"
        raise PlanFault(Fault("the plan's share for counts", "leaves too little for counting", fix))
    update = least_noise(lambda noise: epsilon([counting, PoissonGaussian(noise, rate, updates)], delta), budget)
    return counting.noise_multiplier, update


def _summed(
    plan: Plan, multipliers: tuple[float, float], counts: tuple[int, int], counted: tuple[float, int] = (0.0, 0)
) -> Mechanisms:
    """Turn noise over the sensitivity into whole numbers, which can only add to it."""
    privacy, rate = plan.privacy, plan.training.sample_rate
    shares, partners = privacy.threshold - privacy.colluders, len(plan.partners)
    largest = max(partner.customers for partner in plan.partners)
    cap = (plan.secure or Secure()).batch_cap or math.ceil(2 * rate * largest)

    def made(multiplier: float, room: int) -> Numbers:
        return numbers_for(multiplier=multiplier, partners=partners, shares=shares, batch_cap=room)

    def event(numbers: Numbers, sampled: float) -> DistributedGaussian:
        return DistributedGaussian(numbers.share, shares, numbers.sensitivity, sampled, 1)

    update, histogram = made(multipliers[0], cap), made(multipliers[1], _ROOM * largest)
    count = made(counted[0], 2 * largest) if counted[1] else None
    return Mechanisms(
        event(update, rate),
        counts[0],
        event(histogram, 1.0),
        counts[1],
        Summed(update, histogram, count),
        event(count, 1.0) if count else None,
        counted[1],
    )
