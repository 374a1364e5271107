"""A partner's own sums: whole numbers with all their noise added here, for plans whose steps are sums under "local".

The order is that of every release (`node.py`); the noise is the discrete Gaussian of secure sums, from one partner.
"""

from coterie.clients.agreed import check_sum
from coterie.clients.measuring import noisy_histogram
from coterie.clients.parts import open_part
from coterie.clients.refusals import refused
from coterie.clients.task import SumTask
from coterie.clients.work import Work
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.charges import Charge
from coterie.privacy.events import DiscreteGaussian, Event, PoissonGaussian
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.release import PartnerSum, ScoreHistogram, weights_digest
from coterie.privacy.schedule import COUNT, EVALUATE
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.secagg.numbers import Numbers
from coterie.privacy.sums import numbers_of

__all__ = ["OwnSums"]

_COUNTS = Numbers(bits=64, sensitivity=1, bound=2**40, share=0)
"""Of a histogram of its own: counts are counts, and its noise is drawn for counts."""


class OwnSums:
    """One partner's own sums.

    Args:
        work: Its workspace at work.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, task: SumTask) -> PartnerSum | ScoreHistogram:
        """Sum over own customers and add noise.

        Raises:
            TaskRefused: The task is not the plan's, was lost, or budget or data do not carry it.
        """
        work, agreed = self._work, self._work.agreed(task.plan)
        check_sum(task, agreed.plan)
        if agreed.plan.privacy.trust == SECURE:
            raise refused("task", "the plan", "has secure sums alone", "ask for those")
        event, declared = agreed.declared(task.step)
        group = HOLDOUT if task.step.startswith(f"{EVALUATE}/") else TRAINING
        charge = work.charge(agreed, task.step, task.attempt, (group, event))
        model = weights_digest(task.weights)
        answered = work.charging.answered(charge, model)
        if isinstance(answered, PartnerSum | ScoreHistogram):
            return answered
        work.charging.afford(charge, agreed.policy, declared)
        numbers = _COUNTS if isinstance(event, DiscreteGaussian) else _paid(agreed.plan, task.step, charge)
        stream = work.random.stream(f"{work.name}/{charge.key}")
        part = open_part(work, agreed, task, charge, numbers=numbers, rows=lambda _: stream)
        kept = work.keep(charge, part.counts)
        reservation = work.charging.reserve(charge, agreed.policy, declared, rows=kept)
        total = part.total(stream)
        about = (task.plan, work.name, charge.step, task.attempt, model)
        release: PartnerSum | ScoreHistogram
        if isinstance(event, DiscreteGaussian):
            counts = noisy_histogram(total.reshape(agreed.plan.histogram_shape), event.sigma, stream)
            release = ScoreHistogram(*about, event, (counts,))
        elif isinstance(event, PoissonGaussian):
            noisy = total + discrete_gaussians(numbers.share, len(total), stream)
            release = PartnerSum(*about, event, (noisy,))
        else:
            raise refused("fault", charge.step, "has an event of another kind", "restore the ledger")
        work.charging.settle(reservation, release)
        return release


def _paid(plan: Plan, step: str, charge: Charge) -> Numbers:
    """Return the whole numbers of a sum, whose noise earns the charged event.

    Raises:
        TaskRefused: The code of today makes other noise of the plan than was consented to.
    """
    mechanisms = calibrate(plan)
    today: Event | None = mechanisms.counting if step.startswith(f"{COUNT}/") else mechanisms.update
    if today != charge.event:
        fix = "work with the version that consented, or have the plan proposed anew"
        raise refused("fault", step, "has other noise today than was charged when the plan was consented to", fix)
    return numbers_of(plan, step)
