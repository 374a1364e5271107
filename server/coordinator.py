"""Running a study: propose, collect consents, and take the rounds to the last one.

The coordinator holds nothing secret. It publishes every round before the next is asked for, so that it may be
interrupted anywhere and go on from there.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from coterie.clients.task import encoding_of
from coterie.clients.wire import EVALUATE, PROPOSE, TRAIN, WireFault, decode_release, encode_plan
from coterie.models import propensity
from coterie.models.propensity import Weights
from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.release import CODES, ConsentGiven, Refused
from coterie.privacy.signed import SignedPlan
from coterie.server.aggregate import AdamState
from coterie.server.cohort import Cohort, admit
from coterie.server.exchange import exchange
from coterie.server.registry import Progress, Refusal, Registry, with_refusals
from coterie.server.rounds import Happening, State, after
from coterie.server.strategy import PlanStrategy

__all__ = ["Interrupted", "Patience", "Seen", "run_study", "unless_stopped"]


class Interrupted(CoterieError):
    """The study was asked to stop; what is published can be resumed."""


@dataclass(frozen=True)
class Patience:
    """How long the coordinator waits.

    Args:
        seconds: For all replies to one step.
        poll: Between looks.
    """

    seconds: float = 3600.0
    poll: float = 0.2


@dataclass(frozen=True)
class Seen:
    """Something to show while a study runs.

    Args:
        what: "consents", "reply", "published" or "measured".
        round: Rounds published, or the round at work.
        partner: Who replied, for "reply".
        step: "consent", "train" or "evaluate".
    """

    what: str
    round: int
    partner: str = ""
    step: str = ""


class _Conduct:
    """One run of one study over one grid."""

    def __init__(self, grid: Grid, signed: SignedPlan, registry: Registry, *, patience: Patience) -> None:
        self.grid, self.signed, self.registry, self.patience = grid, signed, registry, patience
        self.plan = signed.plan
        self.mechanisms = calibrate(signed.plan)
        self.refusals: list[Refusal] = []
        self.show: Callable[[Seen], None] = lambda _: None

    def consents(self, expected: int) -> Cohort:
        """Propose the plan to every node and bind those that consent."""
        nodes = self._nodes(expected)
        messages = [
            Message(encode_plan(self.signed.to_bytes()), dst_node_id=node, message_type=PROPOSE) for node in nodes
        ]
        given: dict[int, ConsentGiven] = {}
        silent = set(nodes)
        for node, reply in self._exchange(messages):
            silent.discard(node)
            if reply.has_error():
                self.refusals.append(Refusal(f"node {node}", "consent", 0, _code(reply)))
                continue
            try:
                release = decode_release(reply.content, update=None, histogram=None)
            except WireFault as error:
                self.refusals.append(Refusal(f"node {node}", "consent", 0, "rejected", error.faults[0].rule))
                continue
            if isinstance(release, ConsentGiven):
                given[node] = release
            elif isinstance(release, Refused):
                known = (code for code in release.codes if code in CODES)
                self.refusals.extend(Refusal(f"node {node}", "consent", 0, code) for code in known)
            self.show(Seen("reply", 0, f"node {node}", "consent"))
        self.refusals.extend(Refusal(f"node {node}", "consent", 0, "silent") for node in sorted(silent))
        cohort, faults = admit(self.plan, given)
        self.refusals.extend(Refusal(f.place, "consent", 0, "rejected", f.rule) for f in faults)
        return cohort

    def step(self, strategy: PlanStrategy, kind: str, round_: int, weights: Weights) -> list[Message]:
        """Ask the cohort for one step; ask again where an attempt was lost and the plan has spare ones."""
        replies: list[Message] = []
        asking = strategy.begin(kind, round_, weights)
        attempts: dict[str, int] = dict.fromkeys(strategy.cohort.nodes, 1)
        while asking:
            again: dict[str, int] = {}
            silent = {strategy.cohort.partner_of(m.metadata.dst_node_id) for m in asking}
            for node, reply in self._exchange(asking):
                partner = strategy.cohort.partner_of(node)
                silent.discard(partner)
                if not reply.has_error() and reply.metadata.src_node_id != node:
                    # The strategy goes by the source: one partner may not speak in another's name.
                    self.refusals.append(Refusal(partner, kind, round_, "rejected", "answered as another node"))
                elif not reply.has_error():
                    replies.append(reply)
                    self.show(Seen("reply", round_, partner, kind))
                elif _code(reply) == "lost" and attempts[partner] <= self.plan.training.spare:
                    attempts[partner] += 1
                    again[partner] = attempts[partner]
                else:
                    self.refusals.append(Refusal(partner, kind, round_, _code(reply)))
            self.refusals.extend(Refusal(partner, kind, round_, "silent") for partner in sorted(silent))
            asking = strategy.ask(kind, round_, weights, again)
        return replies

    def _nodes(self, expected: int) -> list[int]:
        """Wait for the expected number of nodes, or for the deadline."""
        end = time.monotonic() + self.patience.seconds
        while len(nodes := sorted(self.grid.get_node_ids())) < expected and time.monotonic() < end:
            time.sleep(self.patience.poll)
        return nodes

    def _exchange(self, messages: Iterable[Message]) -> Iterable[tuple[int, Message]]:
        return exchange(self.grid, messages, seconds=self.patience.seconds, poll=self.patience.poll)


def run_study(
    grid: Grid,
    signed: SignedPlan,
    registry: Registry,
    *,
    patience: Patience,
    show: Callable[[Seen], None],
    stop: Callable[[], bool],
) -> Progress:
    """Run a study to its last round, or go on with one that was interrupted.

    Args:
        grid: Flower's grid, real or in this process.
        signed: The plan.
        registry: Where rounds are published.
        patience: How long to wait.
        show: Called with what may be shown.
        stop: Asked before every step whether to stop.

    Returns:
        The last published state.

    Raises:
        StudyAborted: Fewer partners answered than the plan's threshold.
        Interrupted: `stop` said so; the study can be resumed.
    """
    conduct = _Conduct(grid, signed, registry, patience=patience)
    conduct.show = show
    plan, state = signed.plan, State.PROPOSED
    progress = registry.resume(plan.digest()) or _fresh(signed)
    cohort = conduct.consents(len(plan.partners))
    registry.publish(with_refusals(progress, tuple(conduct.refusals)))
    state = after(state, _enough(len(cohort), plan.privacy.threshold, Happening.ENOUGH_CONSENTS))
    show(Seen("consents", progress.round))
    strategy = PlanStrategy(plan, conduct.mechanisms, cohort, progress.adam)
    while progress.round < plan.training.rounds:
        unless_stopped(stop)
        round_ = progress.round + 1
        state = after(state, Happening.TASKS_SENT)
        replies = conduct.step(strategy, TRAIN, round_, progress.weights)
        arrays, _ = strategy.aggregate_train(round_, replies)
        registry.publish(with_refusals(progress, _refusals(conduct, strategy)))
        state = after(state, Happening.TOO_FEW if arrays is None else Happening.ENOUGH_UPDATES)
        weights = tuple((arrays or ArrayRecord()).to_numpy_ndarrays())
        histograms = dict(progress.histograms)
        progress = replace(progress, round=round_, weights=weights, adam=strategy.adam)
        if round_ in plan.metrics.rounds:
            histograms[round_] = _measure(conduct, strategy, progress)
        progress = with_refusals(replace(progress, histograms=histograms), _refusals(conduct, strategy))
        registry.publish(progress)
        state = after(state, Happening.STORED)
        show(Seen("published", round_))
    if state is State.PUBLISHED:
        after(state, Happening.LAST_ROUND)
    return progress


def _measure(conduct: _Conduct, strategy: PlanStrategy, progress: Progress) -> Mapping[str, NDArray[np.int64]]:
    replies = conduct.step(strategy, EVALUATE, progress.round, progress.weights)
    strategy.aggregate_evaluate(progress.round, replies)
    conduct.show(Seen("measured", progress.round))
    return dict(strategy.histograms)


def _fresh(signed: SignedPlan) -> Progress:
    plan = signed.plan
    width = encoding_of(plan.contract).width
    weights = propensity.initial(plan.model.family, width, plan.model.hidden, seed=0)
    return Progress(plan.digest(), 0, weights, AdamState.start(weights))


def _refusals(conduct: _Conduct, strategy: PlanStrategy) -> tuple[Refusal, ...]:
    return (*conduct.refusals, *strategy.rejected)


def _enough(count: int, threshold: int, happening: Happening) -> Happening:
    return happening if count >= threshold else Happening.TOO_FEW


def unless_stopped(stop: Callable[[], bool]) -> None:
    """Raise Interrupted when `stop` says so."""
    if stop():
        raise Interrupted(Fault("the study", "was interrupted", "go on with --resume"))


def _code(reply: Message) -> str:
    """Return the data-free word of an error reply; Flower's own errors are "silent" to us."""
    reason = reply.error.reason or ""
    return reason if reason in CODES else "silent"
