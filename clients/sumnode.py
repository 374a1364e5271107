"""A partner's node in secure sums: the same order as for every release, with the protocol around it.

    keys, deal     nothing of them depends on data; the ledger says that they leave
    add            a noisy sum over own customers, charged, masked, kept, settled (see `node.py` for the order)
    sign, reveal   once for each sum, over the very vectors that were sent; the ledger says so

A masked vector that was settled is spent, whether or not the sum is ever opened. It is never masked again for others:
a new attempt has a new epoch, a new sample and new noise, and is charged in full.
"""

from coterie.clients.agreed import Agreed, check_sum
from coterie.clients.parts import open_part
from coterie.clients.refusals import refused
from coterie.clients.sums import Sums
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask
from coterie.clients.work import Work
from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.charges import Charge
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.release import (
    DealtShares,
    MaskedVector,
    RevealedShares,
    RoundKeys,
    SurvivorsSigned,
    weights_digest,
)
from coterie.privacy.schedule import EVALUATE
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.secagg.transcript import cohort_digest

__all__ = ["SumNode"]


class SumNode:
    """One partner's answers in secure sums.

    Args:
        work: Its workspace at work.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._sums = Sums(work.workspace, work.ledger, work.random, work.notes)

    def keys(self, asked: KeysAsked) -> RoundKeys:
        """Begin an epoch; raise TaskRefused where the plan or the policy of today has no such thing."""
        return self._sums.keys(self._plan(asked.plan), asked)

    def deal(self, asked: DealAsked) -> DealtShares:
        """Deal shares of the epoch's secrets; raise TaskRefused where the keys shown are not the partners'."""
        return self._sums.deal(self._plan(asked.plan), asked)

    def sign(self, asked: SignAsked) -> SurvivorsSigned:
        """Sign whose vectors a sum is opened over; raise TaskRefused where it may not be."""
        return self._sums.sign(self._plan(asked.plan), asked)

    def reveal(self, asked: RevealAsked) -> RevealedShares:
        """Reveal the shares that open a sum; raise TaskRefused where too few signed what this partner did."""
        return self._sums.reveal(self._plan(asked.plan), asked)

    def forget(self, plan: str) -> None:
        """Destroy what is left of a study's secrets: a sum that is not opened by now stays closed."""
        self._sums.drop(plan)

    def add(self, task: SumTask) -> MaskedVector:
        """Sum over own customers, add the partner's share of noise, and mask.

        Raises:
            TaskRefused: The task is not the plan's, was lost, or budget, data or protocol do not carry it.
        """
        agreed = self._work.agreed(task.plan)
        check_sum(task, agreed.plan)
        charge, declared = self._charge(agreed, task)
        model = weights_digest(task.weights)
        answered = self._work.charging.answered(charge, model)
        if isinstance(answered, MaskedVector):
            if (answered.epoch, answered.cohort) != (task.epoch, cohort_digest(task.cohort)):
                raise refused("replay", charge.step, "was answered in another epoch or cohort", "ask as before")
            return answered
        self._work.charging.afford(charge, agreed.policy, declared)
        working = self._sums.ready(agreed.plan, task, charge)
        # Rows, sample and noise follow from the question and the table, each by itself: one question has one answer,
        # and in no restored workspace do two tables have one noise, which would tell them apart.
        part = open_part(
            *(self._work, agreed, task, charge),
            numbers=working.numbers,
            rows=lambda file: self._sums.stream(working, "rows", file),
        )
        sample, noise = (self._sums.stream(working, purpose, part.contents) for purpose in ("sample", "noise"))
        kept = self._work.keep(charge, part.counts)
        reservation = self._work.charging.reserve(charge, agreed.policy, declared, rows=kept)
        total = part.total(sample)
        noisy = total + discrete_gaussians(working.numbers.share, len(total), noise)
        release = self._sums.mask(agreed.plan, working, noisy, charge)
        self._work.charging.settle(reservation, release)
        return release

    def _plan(self, digest: str) -> Plan:
        plan = self._work.agreed(digest).plan
        if plan.privacy.trust != SECURE:
            raise refused("task", "the plan", "has no secure sums", "ask as the plan says")
        return plan

    def _charge(self, agreed: Agreed, task: SumTask) -> tuple[Charge, int]:
        """Return what a sum costs, and how many like it the study may charge."""
        event, declared = agreed.declared(task.step)
        group = HOLDOUT if task.step.startswith(f"{EVALUATE}/") else TRAINING
        return self._work.charge(agreed, task.step, task.attempt, (group, event)), declared
