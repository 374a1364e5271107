"""How much noise is in what partners released of a round: it follows from the plan and from who answered.

Leaks:
    Nothing: the plan is public, and so is whose releases were received.
"""

import math

from coterie.privacy.calibration import calibrate
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.plan import Plan
from coterie.privacy.schedule import EVALUATE
from coterie.server.registry import Progress

__all__ = ["answered", "histogram_noise"]


def answered(plan: Plan, progress: Progress, number: int) -> int:
    """Return over how many partners a round's histograms were counted.

    Args:
        plan: Of the study.
        progress: Its histograms and receipts.
        number: Of the round, which has a histogram.
    """
    if isinstance(calibrate(plan).histogram, DistributedGaussian):  # a secure sum is one histogram of many partners
        return len({one.partner for one in progress.receipts if one.step == f"{EVALUATE}/{number}"})
    return len(progress.histograms[number])


def histogram_noise(plan: Plan, progress: Progress, number: int) -> float:
    """Return the standard deviation of the noise in each count of a round's histogram, over all partners, in customers.

    Args:
        plan: Of the study.
        progress: Its histograms and receipts.
        number: Of the round, which has a histogram.
    """
    event, partners = calibrate(plan).histogram, answered(plan, progress, number)
    if isinstance(event, DistributedGaussian):
        return math.sqrt(partners) * event.share / (event.sensitivity // plan.parts)
    return math.sqrt(partners) * event.sigma
