"""What follows from a plan for its secure sums: their epochs, and the whole numbers in which they are made.

Partner and coordinator both take it from the signed plan, and neither from the other.
"""

from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.events import DistributedGaussian, Event
from coterie.privacy.plan import Plan
from coterie.privacy.schedule import COUNT, TRAIN, countings, round_of
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.numbers import Numbers

__all__ = ["epoch_of", "is_paid", "most_epochs", "numbers_of"]

_MOST_STEPS = 1024
_SET_UPS = 4  # for each that a study without a fault needs


def numbers_of(plan: Plan, step: str) -> Numbers:
    """Return the whole numbers in which a sum is made.

    Raises:
        PlanFault: The plan has no such sums.
    """
    made = calibrate(plan).summed
    kind = step.partition("/")[0]
    numbers = {COUNT: made.count, TRAIN: made.update}.get(kind, made.histogram) if made is not None else None
    if numbers is None:
        raise PlanFault(Fault("the plan", "has no such sums", "ask as the plan says"))
    return numbers


def epoch_of(plan: Plan, number: int, steps: tuple[str, ...]) -> Epoch:
    """Return an epoch of a plan.

    Raises:
        PlanFault: The steps are not the plan's, are none, or are of two kinds, which are of two widths.
    """
    kinds = {step.partition("/")[0] for step in steps}
    known = len(set(steps)) == len(steps) and all(round_of(plan, step) for step in steps)
    if not 0 < len(steps) <= _MOST_STEPS or not known or len(kinds) != 1:
        raise PlanFault(Fault("the epoch's steps", "are not the plan's, of one kind", "ask as the plan says"))
    roster = tuple((partner.name, partner.key) for partner in plan.partners)
    bits = numbers_of(plan, steps[0]).bits
    return Epoch(plan.digest(), number, roster, plan.privacy.threshold, steps, bits)


def most_epochs(plan: Plan) -> int:
    """Return the greatest number that an epoch of a plan may have, and so how many a partner ever begins.

    A study needs one for each round, each measured round, each spare attempt, and one for what it counts first. Set-ups
    that fail, and coordinators that start again, take more; beyond this number a partner makes no more keys for it.
    """
    needed = countings(plan) + plan.training.rounds + len(plan.metrics.rounds) + plan.training.spare
    return _SET_UPS * (needed + 1)


def is_paid(plan: Plan, step: str, numbers: Numbers, event: Event) -> bool:
    """Return whether an event is the one that a sum costs that is made in these numbers.

    What is charged was written down with the consent; the numbers follow from the plan by the code of today. Where
    the two differ, the noise would not be the one that was charged.

    Args:
        plan: The plan.
        step: Which sum of it.
        numbers: The whole numbers, with the noise, in which it is made.
        event: What is charged.
    """
    shares = plan.privacy.threshold - plan.privacy.colluders
    rate = plan.training.sample_rate if step.startswith(f"{TRAIN}/") else 1.0
    return event == DistributedGaussian(numbers.share, shares, numbers.sensitivity, rate, 1)
