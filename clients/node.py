"""A partner's node, without Flower: consent, work, release.

    propose -> ConsentGiven | Refused
    train   -> ModelUpdate
    measure -> ScoreHistogram

The order inside train and measure is what the guarantee rests on:
    1. the task is checked against the signed plan that was consented to;
    2. an answered question gets the same bytes; a lost attempt stays lost;
    3. the budget is asked, before data is opened;
    4. data is opened and checked, which releases nothing;
    5. the charge is reserved, durably;
    6. noise is drawn and the release made;
    7. the release is kept, then settled; only then may the door let it pass.
"""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from coterie.clients import measuring, training
from coterie.clients.outbox import Outbox
from coterie.clients.policy import Policy, codes, consent, limits, policy_digest, read_policy
from coterie.clients.task import Task, consent_message, weight_shapes
from coterie.clients.vault import Opened, open_table
from coterie.clients.workspace import Workspace
from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import BudgetExhausted, ContractFault, CoterieError, Fault, FileFault, PlanFault
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian, event_from_dict, event_to_dict
from coterie.privacy.ledger import Charge, Ledger, Reservation
from coterie.privacy.plan import Plan, SignedPlan
from coterie.privacy.randomness import RandomSource
from coterie.privacy.release import (
    ConsentGiven,
    ModelUpdate,
    Refused,
    ScoreHistogram,
    release_digest,
    weights_digest,
)

__all__ = ["PartnerNode", "TaskRefused", "open_node"]

T = TypeVar("T")


class TaskRefused(CoterieError):
    """A task that the node will not do; `code` is all that leaves.

    Args:
        code: A key of `privacy.release.CODES`.
        faults: The same for the partner's operator.
    """

    def __init__(self, code: str, *faults: Fault) -> None:
        super().__init__(*faults)
        self.code = code


@dataclass(frozen=True)
class _Consented:
    """A plan that was consented to, with the mechanisms declared then."""

    plan: Plan
    update: PoissonGaussian
    updates: int
    histogram: DiscreteGaussian
    histograms: int


class PartnerNode:
    """One partner at work; made by `open_node`, which holds the workspace's lock.

    Args:
        workspace: Where it keeps everything.
        ledger: Its open ledger.
        random: Where its secret randomness comes from.
        clock: Returns the time in UTC.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        *,
        random: RandomSource,
        clock: Callable[[], datetime.datetime],
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._random = random
        self._clock = clock
        self._outbox = Outbox(workspace.root / "outbox")
        self._name = workspace.name

    @property
    def ledger(self) -> Ledger:
        """The partner's ledger."""
        return self._ledger

    def propose(self, signed: bytes) -> ConsentGiven | Refused:
        """Answer a plan; never opens data.

        Args:
            signed: What `SignedPlan.to_bytes` wrote.

        Returns:
            Consent, or a refusal with every data-free code at once; both are recorded first.
        """
        try:
            policy = read_policy(self._workspace.policy)
        except FileFault as error:
            return self._refuse("", ("policy-missing",), error.faults)
        try:
            plan = SignedPlan.from_bytes(signed, coordinator=policy.coordinator).plan
        except PlanFault as error:
            return self._refuse("", ("signature",), error.faults)
        identity = self._workspace.identity
        mechanisms, reasons = consent(
            plan,
            policy,
            ledger=self._ledger,
            today=self._clock().date(),
            partner=(self._name, identity.public),
        )
        if mechanisms is None:
            return self._refuse(plan.digest(), codes(reasons), tuple(reason.fault for reason in reasons))
        write_durably(self._plan_path(plan.digest()), signed)
        signature = identity.sign(consent_message(plan.digest(), self._name))
        given = ConsentGiven(plan.digest(), self._name, signature)
        body = {
            "release": release_digest(given),
            "plan": plan.digest(),
            "name": plan.name,
            "purpose": plan.purpose,
            "expires": plan.expires.isoformat(),
            "policy": policy_digest(self._workspace.policy),
            "update": event_to_dict(mechanisms.update),
            "updates": mechanisms.updates,
            "histogram": event_to_dict(mechanisms.histogram),
            "histograms": mechanisms.histograms,
        }
        self._ledger.record("consent", body)
        return given

    def train(self, task: Task) -> ModelUpdate:
        """Train for one round and release the update.

        Raises:
            TaskRefused: The task is not the plan's, was lost, or the budget or the data do not carry it.
        """
        agreed = self._consented(task)
        charge = self._charge(agreed.plan, f"train/{task.round}", task, (TRAINING, agreed.update))
        answered = self._answered(charge, task)
        if isinstance(answered, ModelUpdate):
            return answered
        policy = self._budgeted(charge, agreed.updates)
        opened = self._open(agreed.plan, charge)
        customers = self._local(lambda: training.training_customers(opened, agreed.plan))
        reservation = self._reserve(charge, policy, agreed.updates)
        arrays, event = training.train(
            agreed.plan,
            self._name,
            task.weights,
            customers,
            noise=agreed.update.noise_multiplier,
            stream=self._random.stream(f"{self._name}/{charge.key}"),
        )
        model = weights_digest(task.weights)
        release = ModelUpdate(task.plan, self._name, charge.step, task.attempt, model, event, arrays)
        self._settle(reservation, release)
        return release

    def measure(self, task: Task) -> ScoreHistogram:
        """Score the held-out customers and release the noisy histogram.

        Raises:
            TaskRefused: As `train`.
        """
        agreed = self._consented(task)
        if task.round not in agreed.plan.metrics.rounds:
            raise _refused("task", "the task's round", "is not one that the plan measures", "ask for one that is")
        charge = self._charge(agreed.plan, f"evaluate/{task.round}", task, (HOLDOUT, agreed.histogram))
        answered = self._answered(charge, task)
        if isinstance(answered, ScoreHistogram):
            return answered
        policy = self._budgeted(charge, agreed.histograms)
        opened = self._open(agreed.plan, charge)
        reservation = self._reserve(charge, policy, agreed.histograms)
        stream = self._random.stream(f"{self._name}/{charge.key}")
        counts = measuring.score_histogram(opened, agreed.plan, task.weights, stream)
        noisy = measuring.noisy_histogram(counts, agreed.histogram.sigma, stream)
        model = weights_digest(task.weights)
        release = ScoreHistogram(task.plan, self._name, charge.step, task.attempt, model, agreed.histogram, (noisy,))
        self._settle(reservation, release)
        return release

    def _refuse(self, plan: str, why: tuple[str, ...], faults: tuple[Fault, ...]) -> Refused:
        refused = Refused(plan, tuple(sorted(why)))
        self._note("refusals.log", faults)
        body = {"release": release_digest(refused), "plan": plan, "codes": list(refused.codes)}
        self._ledger.record("refusal", body)
        return refused

    def _consented(self, task: Task) -> _Consented:
        """Find the plan of a task and hold the task against it."""
        body = next(
            (e.body for e in self._ledger.entries() if e.kind == "consent" and e.body["plan"] == task.plan),
            None,
        )
        if body is None:
            raise _refused("no-consent", "the task's plan", "was never consented to", "propose it first")
        try:
            policy = read_policy(self._workspace.policy)
            data = self._plan_path(task.plan).read_bytes()
            plan = SignedPlan.from_bytes(data, coordinator=policy.coordinator).plan
        except (OSError, CoterieError) as error:
            faults = error.faults if isinstance(error, CoterieError) else ()
            raise TaskRefused("no-consent", *faults) from None
        if self._clock().date() > plan.expires:
            raise _refused("expired", "plan.expires", "lies in the past", "ask for a new plan")
        _check_task(task, plan)
        update, histogram = event_from_dict(body["update"]), event_from_dict(body["histogram"])
        if not isinstance(update, PoissonGaussian) or not isinstance(histogram, DiscreteGaussian):
            raise _refused("fault", "the ledger's consent", "declares no such events", "restore the ledger")
        return _Consented(plan, update, int(body["updates"]), histogram, int(body["histograms"]))

    def _charge(
        self, plan: Plan, step: str, task: Task, what: tuple[str, PoissonGaussian | DiscreteGaussian]
    ) -> Charge:
        group, event = what
        return Charge(task.plan, plan.purpose, step, task.attempt, group, event, self._random.name)

    def _answered(self, charge: Charge, task: Task) -> ModelUpdate | ScoreHistogram | None:
        """Return the release of a question that was answered before."""
        attempts = {r.charge.attempt: r for r in self._ledger.reservations() if _same_step(r.charge, charge)}
        earlier = attempts.get(charge.attempt)
        if earlier is None:
            if any(r.settled is not None for r in attempts.values()) or len(attempts) != charge.attempt - 1:
                raise _refused("task", "the task's attempt", "follows no lost one", "ask for the first attempt")
            return None
        if earlier.settled is None:
            raise _refused("lost", charge.step, "was lost in a crash", "declare spare attempts in the plan")
        release = self._outbox.again(earlier.charge, earlier.settled)
        if release.model != weights_digest(task.weights):
            raise _refused("replay", charge.step, "was answered for another model", "ask with the same model")
        return release

    def _budgeted(self, charge: Charge, declared: int) -> Policy:
        """Ask whether the budget would carry the charge, before data is opened."""
        policy = read_policy(self._workspace.policy)
        try:
            self._ledger.would_carry(charge, limits(policy, charge.purpose), declared=declared)
        except BudgetExhausted as error:
            self._note("refusals.log", error.faults)
            raise TaskRefused("budget", *error.faults) from None
        return policy

    def _reserve(self, charge: Charge, policy: Policy, declared: int) -> Reservation:
        try:
            return self._ledger.reserve(charge, limits(policy, charge.purpose), declared=declared)
        except BudgetExhausted as error:
            self._note("refusals.log", error.faults)
            raise TaskRefused("budget", *error.faults) from None

    def _settle(self, reservation: Reservation, release: ModelUpdate | ScoreHistogram) -> None:
        self._outbox.keep(reservation.charge, release)
        self._ledger.settle(reservation, release_digest(release))

    def _open(self, plan: Plan, charge: Charge) -> Opened:
        stream = self._random.stream(f"{self._name}/rows/{charge.key}")
        workspace = self._workspace

        def opening() -> Opened:
            return open_table(workspace.table, plan.contract, group_key=workspace.group_key, stream=stream)

        opened = self._local(opening)
        if opened.notes:
            lines = tuple(Fault(name, f"in {count} rows", "see the contract") for name, count in opened.notes.items())
            self._note("data-notes.log", lines)
        return opened

    def _local(self, work: Callable[[], T]) -> T:
        """Do what depends on rows: its reasons stay here, and one uniform word leaves."""
        try:
            return work()
        except ContractFault as error:
            self._note("refusals.log", error.faults)
            raise TaskRefused("unavailable", *error.faults) from None

    def _note(self, file: str, faults: tuple[Fault, ...]) -> None:
        """Write to a report that only the partner's own operator reads."""
        path = self._workspace.root / "reports" / file
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        fresh = [line for line in (f"{fault}\n" for fault in faults) if line not in known]
        if fresh:
            write_durably(path, (known + "".join(fresh)).encode())

    def _plan_path(self, digest: str) -> Path:
        return self._workspace.root / "plans" / f"{digest.removeprefix('sha256:')}.json"


@contextmanager
def open_node(root: Path, *, random: RandomSource, clock: Callable[[], datetime.datetime]) -> Iterator[PartnerNode]:
    """Hold a workspace, recover its ledger, and put its node to work.

    Args:
        root: The workspace's folder.
        random: Where its secret randomness comes from.
        clock: Returns the time in UTC.

    Raises:
        WorkspaceBusy: Another process holds it.
        FileFault: There is no workspace, or a file of it is wrong.
        LedgerFault: Its ledger cannot be used.
    """
    workspace = Workspace(root)
    with workspace.lock(), Ledger(workspace.ledger, clock) as ledger:
        ledger.recover()
        yield PartnerNode(workspace, ledger, random=random, clock=clock)


def _check_task(task: Task, plan: Plan) -> None:
    training_ = plan.training
    right = (
        1 <= task.round <= training_.rounds
        and 1 <= task.attempt <= 1 + training_.spare
        and tuple(array.shape for array in task.weights) == weight_shapes(plan)
        and all(array.dtype == np.float32 and bool(np.isfinite(array).all()) for array in task.weights)
    )
    if not right:
        raise _refused("task", "the task", "is not one that the plan describes", "ask as the plan says")


def _same_step(one: Charge, other: Charge) -> bool:
    return (one.plan, one.step) == (other.plan, other.step)


def _refused(code: str, place: str, rule: str, fix: str) -> TaskRefused:
    return TaskRefused(code, Fault(place, rule, fix))
