"""The noise of a plan's sums if one trusted party added it: what a plan is held against, and nobody is charged by."""

from dataclasses import dataclass

from coterie.privacy.accountant import epsilon
from coterie.privacy.calibration import least_pair
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.leastnoise import least_noise
from coterie.privacy.plan import Plan
from coterie.privacy.schedule import countings, summed, trainings

__all__ = ["CentralNoise", "central_noise"]


@dataclass(frozen=True)
class CentralNoise:
    """The noise of one party.

    Args:
        steps: How many gradient sums the plan has, without spare ones.
        update: Noise of each over the clip.
        counting: Noise of the sum that counts first, over its sensitivity; 0 where there is none.
    """

    steps: int
    update: float
    counting: float = 0.0


def central_noise(plan: Plan) -> CentralNoise:
    """Return what one party would add to spend the plan's budget for training, spare attempts included.

    Raises:
        PlanFault: No reasonable noise keeps the budget.
    """
    training, privacy = plan.training, plan.privacy
    steps = training.rounds * training.local_steps
    whole = (
        trainings(plan) + training.spare if summed(plan) else (training.rounds + training.spare) * training.local_steps
    )
    budget, rate, delta = privacy.epsilon * privacy.split.training, training.sample_rate, privacy.delta
    if plan.bins is not None:
        counts = (countings(plan) + training.spare, whole)
        counting, update = least_pair(budget, delta, rate=rate, counts=counts, share=plan.bins.counts)
        return CentralNoise(steps, update, counting)
    return CentralNoise(steps, least_noise(lambda n: epsilon([PoissonGaussian(n, rate, whole)], delta), budget))
