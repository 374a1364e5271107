"""What follows from a plan for its secure sums: their epochs, and the whole numbers in which they are made.

Partner and coordinator both take it from the signed plan, and neither from the other.
"""

from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.plan import Plan
from coterie.privacy.schedule import TRAIN, round_of
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.numbers import Numbers

__all__ = ["epoch_of", "numbers_of"]

_MOST_STEPS = 1024


def numbers_of(plan: Plan, step: str) -> Numbers:
    """Return the whole numbers in which a sum is made.

    Raises:
        PlanFault: The plan has no secure sums.
    """
    summed = calibrate(plan).summed
    if summed is None:
        raise PlanFault(Fault("the plan", "has no secure sums", "ask as the plan says"))
    return summed.update if step.startswith(f"{TRAIN}/") else summed.histogram


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
