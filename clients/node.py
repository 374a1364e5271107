"""A partner's node, without Flower: consent, work, release.

    propose -> ConsentGiven | Refused
    train   -> ModelUpdate
    measure -> ScoreHistogram
    add     -> a sum over own customers, masked (`sumnode.py`) or with all its noise (`ownsums.py`)
    matches -> what leaves in a match of customers (`matching/node.py`)
    sums    -> what else leaves in secure sums (`sumnode.py`)
    receive -> ModelReceived

The order inside train and measure is what the guarantee rests on:
    1. the task is checked against the signed plan that was consented to;
    2. an answered question gets the same bytes; a lost attempt stays lost;
    3. the budget is asked, before data is opened;
    4. data is opened and checked, which releases nothing, and its counts are sealed;
    5. the charge is reserved, durably, with a commitment to them;
    6. noise is drawn and the release made;
    7. the release is kept, then settled; only then may the door let it pass.
"""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coterie.clients import measuring, training
from coterie.clients.agreed import Agreed, check_task
from coterie.clients.consent import codes, consent, consent_body
from coterie.clients.history import hold_to, introduce
from coterie.clients.hygiene import forbid_dumps
from coterie.clients.inbox import FULL, keep
from coterie.clients.keysources import Sources
from coterie.clients.matching.node import MatchNode
from coterie.clients.ownsums import OwnSums
from coterie.clients.receiving import take_model
from coterie.clients.refusals import TaskRefused, refused
from coterie.clients.sumnode import SumNode
from coterie.clients.task import SumTask, Task, consent_message
from coterie.clients.work import Work
from coterie.clients.workspace import Workspace
from coterie.models.propensity import Weights
from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.codes import PENDING
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault, PlanFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.randomness import RandomSource
from coterie.privacy.release import (
    ConsentGiven,
    MaskedVector,
    ModelReceived,
    ModelUpdate,
    PartnerSum,
    Refused,
    ScoreHistogram,
    release_digest,
    weights_digest,
)
from coterie.privacy.signed import SignedPlan

__all__ = ["PartnerNode", "open_node"]


class PartnerNode:
    """One partner at work; made by `open_node`, which holds the workspace's lock.

    Args:
        workspace: Where it keeps everything.
        ledger: Its open ledger.
        random: Where its secret randomness comes from.
        sources: Returns where the vault's keys come from.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        random: RandomSource,
        sources: Sources = Workspace.key_source,
    ) -> None:
        self._workspace, self._ledger, self._random = workspace, ledger, random
        self._work = Work(workspace, ledger, random, sources)
        self._name = workspace.name
        self.sums = SumNode(self._work)
        self._own_sums = OwnSums(self._work)
        self.matches = MatchNode(self._work)

    @property
    def ledger(self) -> Ledger:
        """The partner's ledger."""
        return self._ledger

    def propose(self, signed: bytes) -> ConsentGiven | Refused:
        """Answer a plan; never opens data.

        Args:
            signed: What `SignedPlan.to_bytes` wrote.

        Returns:
            Consent, or a refusal with every data-free code at once; both are recorded first. A plan that nothing but
            the operator's word is wanting to is kept for it.
        """
        try:
            policy, rules = self._work.policy()
        except FileFault as error:
            return self._refuse("", ("policy-missing",), error.faults)
        try:
            plan = SignedPlan.from_bytes(signed, coordinator=policy.coordinator).plan
        except PlanFault as error:
            return self._refuse("", ("signature",), error.faults)
        mechanisms, reasons = consent(
            plan,
            policy,
            standing=self._work.standing(),
            ledger=self._ledger,
        )
        if mechanisms is None:
            faults = tuple(reason.fault for reason in reasons)
            if set(codes(reasons)) <= PENDING and not keep(self._workspace, plan, signed, self._ledger):
                faults += (FULL,)
            return self._refuse(plan.digest(), codes(reasons), faults)
        given = self._given(plan, signed)
        body = consent_body(plan, mechanisms, policy, (release_digest(given), rules))
        if not any(entry.body == body for entry in self._ledger.entries("consent")):
            self._ledger.record("consent", body)
        return given

    def hold_to(self, note: str) -> None:
        """Hold the ledger to the checkpoint of it that the coordinator shows, "" where it shows none.

        Raises:
            TaskRefused: The ledger does not extend it.
        """
        try:
            policy, _ = self._work.policy()
        except FileFault:
            return  # whatever is asked without a policy is refused
        hold_to(self._ledger, note, partner=self._workspace.identity.public, coordinator=policy.coordinator)

    def receive(self, record: bytes, weights: Weights) -> ModelReceived:
        """Keep a study's final model and the coordinator's record.

        Raises:
            TaskRefused: It is not the model of a study that was consented to, or the record is not true to the ledger.
        """
        try:
            policy, _ = self._work.policy()
        except FileFault as error:
            raise TaskRefused("policy-missing", *error.faults) from None
        received = take_model(self._workspace, self._ledger, record, weights, coordinator=policy.coordinator)
        self.sums.forget(received.plan)
        return received

    def _given(self, plan: Plan, signed: bytes) -> ConsentGiven:
        """Keep a plan, and sign the consent to it."""
        write_durably(self._workspace.plan(plan.digest()), signed)
        signature = self._workspace.identity.sign(consent_message(plan.digest(), self._name))
        return ConsentGiven(plan.digest(), self._name, signature)

    def add(self, task: SumTask) -> MaskedVector | PartnerSum | ScoreHistogram:
        """Release a sum over own customers: masked for a secure sum, or with all its noise, as the plan's trust is.

        Raises:
            TaskRefused: The task is not the plan's, was lost, or budget, data or protocol do not carry it.
        """
        if self._work.agreed(task.plan).plan.privacy.trust == SECURE:
            return self.sums.add(task)
        return self._own_sums.add(task)

    def train(self, task: Task) -> ModelUpdate:
        """Train for one round and release the update.

        Raises:
            TaskRefused: The task is not the plan's, was lost, or the budget or the data do not carry it.
        """
        agreed = self._agreed(task)
        update, _ = agreed.own_events()
        charge = self._work.charge(agreed, f"train/{task.round}", task.attempt, (TRAINING, update))
        answered = self._work.charging.answered(charge, weights_digest(task.weights))
        if isinstance(answered, ModelUpdate):
            return answered
        self._work.charging.afford(charge, agreed.policy, agreed.updates)
        opened = self._work.open(agreed, charge)
        customers = self._work.local(lambda: training.training_customers(opened, agreed.plan), agreed.plan)
        rows = self._work.keep(charge, opened.counts)
        reservation = self._work.charging.reserve(charge, agreed.policy, agreed.updates, rows=rows)
        arrays, event = training.train(
            agreed.plan,
            self._name,
            task.weights,
            customers,
            noise=update.noise_multiplier,
            stream=self._random.stream(f"{self._name}/{charge.key}"),
        )
        model = weights_digest(task.weights)
        release = ModelUpdate(task.plan, self._name, charge.step, task.attempt, model, event, arrays)
        self._work.charging.settle(reservation, release)
        return release

    def measure(self, task: Task) -> ScoreHistogram:
        """Score the held-out customers and release the noisy histogram.

        Raises:
            TaskRefused: As `train`.
        """
        agreed = self._agreed(task)
        if task.round not in agreed.plan.metrics.rounds:
            raise refused("task", "the task's round", "is not one that the plan measures", "ask for one that is")
        _, histogram = agreed.own_events()
        charge = self._work.charge(agreed, f"evaluate/{task.round}", task.attempt, (HOLDOUT, histogram))
        answered = self._work.charging.answered(charge, weights_digest(task.weights))
        if isinstance(answered, ScoreHistogram):
            return answered
        self._work.charging.afford(charge, agreed.policy, agreed.histograms)
        opened = self._work.open(agreed, charge)
        rows = self._work.keep(charge, opened.counts)
        reservation = self._work.charging.reserve(charge, agreed.policy, agreed.histograms, rows=rows)
        stream = self._random.stream(f"{self._name}/{charge.key}")
        counts = measuring.score_histogram(opened, agreed.plan, task.weights, stream)
        noisy = measuring.noisy_histogram(counts, histogram.sigma, stream)
        model = weights_digest(task.weights)
        release = ScoreHistogram(task.plan, self._name, charge.step, task.attempt, model, histogram, (noisy,))
        self._work.charging.settle(reservation, release)
        return release

    def _agreed(self, task: Task) -> Agreed:
        """Find what a task rests on, and hold the task against it."""
        agreed = self._work.agreed(task.plan)
        check_task(task, agreed.plan)
        return agreed

    def _refuse(self, plan: str, why: tuple[str, ...], faults: tuple[Fault, ...]) -> Refused:
        refused = Refused(plan, tuple(sorted(why)))
        self._work.notes.write("refusals.log", faults)
        body = {"release": release_digest(refused), "plan": plan, "codes": list(refused.codes)}
        if not self._ledger.paid_for(release_digest(refused)):
            self._ledger.record("refusal", body)
        return refused


@contextmanager
def open_node(
    root: Path,
    *,
    random: RandomSource,
    clock: Callable[[], datetime.datetime],
    sources: Sources = Workspace.key_source,
) -> Iterator[PartnerNode]:
    """Hold a workspace, recover its ledger, and put its node to work; this process then leaves no core file.

    Args:
        root: The workspace's folder.
        random: Where its secret randomness comes from.
        clock: Returns the time in UTC.
        sources: Returns where the vault's keys come from; they are asked for when rows are opened.

    Raises:
        WorkspaceBusy: Another process holds it.
        FileFault: There is no workspace, or a file of it is wrong.
        LedgerFault: Its ledger cannot be used.
    """
    workspace = Workspace(root)
    forbid_dumps()
    with workspace.lock(), Ledger(workspace.ledger, clock) as ledger:
        introduce(ledger, workspace)
        ledger.recover()
        yield PartnerNode(workspace, ledger, random, sources)
