"""What was agreed: the plan behind a task, as it was consented to and as the policy of today still permits it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie.clients.consent import Standing, codes, decision_on, division, objections
from coterie.clients.refusals import Notes, TaskRefused, refused
from coterie.clients.task import SumTask, Task, weight_shapes
from coterie.models.propensity import Weights
from coterie.privacy.calibration import NO_HISTOGRAM, NO_UPDATE
from coterie.privacy.compliance import Reason, unapproved
from coterie.privacy.errors import CoterieError
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, PoissonGaussian, event_from_dict
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.policy import Policy
from coterie.privacy.schedule import COUNT, EVALUATE, round_of, summed
from coterie.privacy.signed import SignedPlan

__all__ = ["MOST_WEIGHT", "Agreed", "agreed_plan", "check_sum", "check_task"]

MOST_WEIGHT = 1e6  # beyond it no model is sound, and float32 gradients need not be finite


@dataclass(frozen=True)
class Agreed:
    """A plan that was consented to, with today's policy and the mechanisms declared then.

    Args:
        plan: The plan.
        policy: The policy as it is now.
        update: Event of one model update, or of the secure sum of one step.
        updates: How many the study may charge.
        histogram: Event of one score histogram.
        histograms: How many the study may charge.
        counting: Event of one sum of items' popularity; None where there is none.
        countings: How many the study may charge.
        overlap: Event of one list for a match that is counted; None where there is none.
        overlaps: How many the study may charge.
    """

    plan: Plan
    policy: Policy
    update: PoissonGaussian | DistributedGaussian
    updates: int
    histogram: DiscreteGaussian | DistributedGaussian
    histograms: int
    counting: PoissonGaussian | DistributedGaussian | None = None
    countings: int = 0
    overlap: DiscreteGaussian | None = None
    overlaps: int = 0

    def declared(self, step: str) -> tuple[Event, int]:
        """Return the event of one of the study's sums, and how many like it the study may charge.

        Raises:
            TaskRefused: The study has no such sum.
        """
        kind = step.partition("/")[0]
        if kind == COUNT:
            if self.counting is None:
                raise refused("task", "the task", "is not one that the plan describes", "ask as the plan says")
            return self.counting, self.countings
        if kind == EVALUATE:
            return self.histogram, self.histograms
        return self.update, self.updates

    def own_events(self) -> tuple[PoissonGaussian, DiscreteGaussian]:
        """Return the events of releases that are private on their own.

        Raises:
            TaskRefused: The plan has none: it releases secure sums alone.
        """
        if isinstance(self.update, DistributedGaussian) or isinstance(self.histogram, DistributedGaussian):
            raise refused("task", "the task", "is not one that the plan describes", "ask for secure sums")
        return self.update, self.histogram


def agreed_plan(
    digest: str, stored: Path, *, policy: Policy, ledger: Ledger, standing: Standing, notes: Notes
) -> Agreed:
    """Find the plan of a task and hold it against policy and approval of today: what is withdrawn is not done.

    Args:
        digest: The plan that the task names.
        stored: The signed plan's file.
        policy: The policy of today.
        ledger: Where the consent and the operator's word are.
        standing: Who and when the partner is.
        notes: Where refusals are written for the operator.

    Raises:
        TaskRefused: It was never consented to, has expired, is not permitted any more, or was declined since.
    """
    body = next((e.body for e in ledger.entries("consent") if e.body["plan"] == digest), None)
    if body is None:
        raise refused("no-consent", "the task's plan", "was never consented to", "propose it first")
    try:
        plan = SignedPlan.from_bytes(stored.read_bytes(), coordinator=policy.coordinator).plan
    except (OSError, CoterieError) as error:
        faults = error.faults if isinstance(error, CoterieError) else ()
        raise TaskRefused("no-consent", *faults) from None
    if plan.digest() != digest:
        raise refused("no-consent", "the stored plan", "is not the task's", "propose it again")
    if standing.today > plan.expires:
        raise refused("expired", "plan.expires", "lies in the past", "ask for a new plan")
    against = objections(plan, policy, standing) + unapproved(plan, policy, decision_on(digest, ledger))
    _still_permitted(against, notes)
    if plan.cohort.segments and body.get("division") != division(policy):
        fix = "keep them as they were: customers are divided for life"
        raise refused("no-consent", "policy.segments", "are not those that were consented to", fix)
    return _declared(plan, policy, body)


def _declared(plan: Plan, policy: Policy, body: Mapping[str, Any]) -> Agreed:
    """Read the events that a consent declared; they are of the kinds that the plan's trust has."""
    update, histogram = event_from_dict(body["update"]), event_from_dict(body["histogram"])
    updates, histograms, countings = int(body["updates"]), int(body["histograms"]), int(body.get("countings", 0))
    counting = event_from_dict(body["counting"]) if "counting" in body else None
    if plan.matches:
        return _declared_match(plan, policy, body)
    if plan.privacy.trust == SECURE:
        if (
            isinstance(update, DistributedGaussian)
            and isinstance(histogram, DistributedGaussian)
            and isinstance(counting, DistributedGaussian | None)
        ):
            return Agreed(plan, policy, update, updates, histogram, histograms, counting, countings)
    elif (
        isinstance(update, PoissonGaussian)
        and isinstance(histogram, DiscreteGaussian)
        and isinstance(counting, PoissonGaussian | None)
    ):
        return Agreed(plan, policy, update, updates, histogram, histograms, counting, countings)
    raise refused("fault", "the ledger's consent", "declares no such events", "restore the ledger")


def _declared_match(plan: Plan, policy: Policy, body: Mapping[str, Any]) -> Agreed:
    """Read the event of a match that a consent declared; one that is no counting has none."""
    overlap = event_from_dict(body["overlap"]) if "overlap" in body else None
    if not isinstance(overlap, DiscreteGaussian | None):
        raise refused("fault", "the ledger's consent", "declares no such events", "restore the ledger")
    lists = int(body.get("overlaps", 0))
    return Agreed(plan, policy, NO_UPDATE, 0, NO_HISTOGRAM, 0, overlap=overlap, overlaps=lists)


def check_task(task: Task, plan: Plan) -> None:
    """Hold a task against its plan; nothing here depends on data.

    Raises:
        TaskRefused: Its round, attempt or weights are not the plan's.
    """
    own = not summed(plan) and 1 <= task.round <= plan.training.rounds
    if not (own and 1 <= task.attempt <= 1 + plan.training.spare and _sound(task.weights, plan)):
        raise refused("task", "the task", "is not one that the plan describes", "ask as the plan says")


def check_sum(task: SumTask, plan: Plan) -> None:
    """Hold a task of a sum against its plan; nothing here depends on data.

    Raises:
        TaskRefused: Its step, attempt or weights are not the plan's.
    """
    known = summed(plan) and round_of(plan, task.step) is not None
    if not (known and 1 <= task.attempt <= 1 + plan.training.spare and _sound(task.weights, plan)):
        raise refused("task", "the task", "is not one that the plan describes", "ask as the plan says")


def _sound(weights: Weights, plan: Plan) -> bool:
    """Return whether weights are those of the plan's model, and not beyond all sense."""
    return tuple(array.shape for array in weights) == weight_shapes(plan) and all(
        array.dtype == np.float32 and bool((np.abs(array) <= MOST_WEIGHT).all()) for array in weights
    )


def _still_permitted(reasons: list[Reason], notes: Notes) -> None:
    if reasons:
        faults = tuple(reason.fault for reason in reasons)
        notes.write("refusals.log", faults)
        # An approval that a broken table took back says no more than it said the first time.
        code = "unavailable" if codes(reasons) == ("contract",) else "no-consent"
        raise TaskRefused(code, *faults)
