"""How long an honest reply can be: the room that a plan's clip, noise and declared sizes leave, and none beyond.

Noise has no hard bound, so these are bounds that an honest reply passes with a chance below 2**-40. What lies within
them is formally permitted: one partner's update may be as long as if all of its customers had pulled one way.
"""

import math

from coterie.models.propensity import Weights
from coterie.privacy.calibration import Mechanisms
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.plan import Plan
from coterie.privacy.sums import numbers_of

__all__ = ["longest_histogram", "longest_sum", "longest_update"]

_ROOM = 16  # times the declared customers: what was declared is an order of magnitude; calibration leaves as much
_TAIL = 41 * math.log(2)  # a chance of 2**-41 for each of two things that may go far
_ROUNDING = 2.0**-20  # of float32, over the steps of a round, relative to the weights; eight times what one step needs


def longest_update(plan: Plan, mechanisms: Mechanisms, partner: str, weights: Weights) -> float:
    """Return the greatest Euclidean length of an honest update of one round; infinite where partners send none.

    A round is `local_steps` steps of plain descent along (clipped sum + noise) / normaliser. The sample's size is
    bounded by Bernstein's inequality, the noise's length by the concentration of a Lipschitz function of Gaussians
    (Boucheron, Lugosi and Massart 2013, theorems 2.10 and 5.6).

    Args:
        plan: The plan.
        mechanisms: Its calibrated events.
        partner: Who is asked.
        weights: What the round starts from.
    """
    event, training = mechanisms.update, plan.training
    if not isinstance(event, PoissonGaussian) or mechanisms.summed is not None:
        return math.inf
    declared, size = _declared(plan, partner), sum(array.size for array in weights)
    tail = _TAIL + math.log(training.local_steps)
    expected = training.sample_rate * _ROOM * declared
    sampled = min(_ROOM * declared, expected + tail / 3 + math.sqrt(tail**2 / 9 + 2 * expected * tail))
    noise = event.noise_multiplier * (math.sqrt(size) + math.sqrt(2 * tail))
    step = training.learning_rate * training.clip * (sampled + noise) / (training.sample_rate * declared)
    start = math.sqrt(sum(float((array.astype("float64") ** 2).sum()) for array in weights))
    return training.local_steps * (step * (1 + _ROUNDING) + start * _ROUNDING)


def longest_histogram(plan: Plan, mechanisms: Mechanisms, partner: str) -> float:
    """Return the greatest Euclidean length of an honest histogram; infinite where partners send none.

    A customer is counted once, so counts are no longer than there are customers; a discrete Gaussian is as
    concentrated as the Gaussian (Canonne, Kamath and Steinke 2020, arXiv 2004.00010, lemma 22), cell by cell.

    Args:
        plan: The plan.
        mechanisms: Its calibrated events.
        partner: Who is asked.
    """
    event = mechanisms.histogram
    if not isinstance(event, DiscreteGaussian):
        return math.inf
    cells = math.prod(plan.histogram_shape)
    cell = event.sigma * math.sqrt(2 * (_TAIL + math.log(2 * cells)))
    return _ROOM * _declared(plan, partner) + cell * math.sqrt(cells)


def longest_sum(plan: Plan, step: str, size: int) -> float:
    """Return the greatest Euclidean length of an honest sum of one partner's own, with all its noise.

    Before its noise each coordinate is clamped to the plan's bound; eleven deviations are what the plan's whole numbers
    leave for noise (`privacy/secagg/numbers.py`).

    Args:
        plan: The plan.
        step: Name of the sum.
        size: How many coordinates it has.
    """
    numbers = numbers_of(plan, step)
    return math.sqrt(size) * (numbers.bound + 11 * numbers.share)


def _declared(plan: Plan, partner: str) -> int:
    entry = plan.partner(partner)
    return entry.customers if entry is not None else 1
