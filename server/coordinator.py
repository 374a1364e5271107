"""Running a study: propose, collect consents, and take the rounds to the last one.

The coordinator holds nothing secret but its signing key. It publishes every round before the next is asked for, so
that it may be interrupted anywhere and go on from there. With every question it shows a partner the last checkpoint
that it saw of the partner's ledger, and takes no answer of one whose ledger does not extend it (`witness.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from coterie.clients.task import initial_weights
from coterie.clients.wire import (
    EVALUATE,
    TRAIN,
)
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.plan import SECURE
from coterie.privacy.schedule import summed
from coterie.privacy.signed import SignedPlan
from coterie.server.aggregate import AdamState
from coterie.server.cohort import Cohort
from coterie.server.conduct import Conduct, Seen
from coterie.server.exchange import Patience
from coterie.server.matching import Match
from coterie.server.openly import OpenStudy
from coterie.server.registry import Progress, Registry, with_news
from coterie.server.rounds import Happening, State, after
from coterie.server.securely import SecureStudy
from coterie.server.strategy import PlanStrategy
from coterie.server.witness import Witness

__all__ = ["Interrupted", "Patience", "Seen", "Undecided", "run_study", "unless_stopped"]


class Interrupted(CoterieError):
    """The study was asked to stop; what is published can be resumed."""


class Undecided(CoterieError):
    """Partners have not decided about the plan, or are not there; it is for later."""


def run_study(  # noqa: PLR0913 - all of it is the edge of the program
    grid: Grid,
    signed: SignedPlan,
    places: tuple[Registry, Witness],
    *,
    patience: Patience,
    show: Callable[[Seen], None],
    stop: Callable[[], bool],
    nodes: Callable[[], Sequence[int]] | None = None,
) -> Progress:
    """Run a study to its last round, or go on with one that was interrupted.

    Args:
        grid: Flower's grid, real or in this process.
        signed: The plan.
        places: Where rounds are published, and where the partners' checkpoints are kept.
        patience: How long to wait.
        show: Called with what may be shown.
        stop: Asked before every step whether to stop.
        nodes: Finds the nodes that may be asked at all; every node of the grid when None.

    Returns:
        The last published state.

    Raises:
        StudyAborted: Fewer partners answered than the plan's threshold.
        Interrupted: `stop` said so; the study can be resumed.
        Undecided: Patience has it that a study comes back later, and partners have not decided or are not online.
    """
    registry, witness = places
    conduct = Conduct(grid, signed, witness, patience=patience, nodes=nodes)
    conduct.show, conduct.stop = show, stop
    plan, state = signed.plan, State.PROPOSED
    progress = registry.resume(plan.digest()) or _fresh(signed)
    cohort = conduct.consents(len(plan.partners))
    _unless_later(conduct, cohort, stop)
    registry.publish(with_news(progress, conduct.refusals, ()))
    state = after(state, _enough(len(cohort), plan.privacy.threshold, Happening.ENOUGH_CONSENTS))
    show(Seen("consents", progress.round))
    if plan.matching is not None:
        state = after(state, Happening.LISTS_ASKED)
        progress = Match(conduct, cohort, registry, progress, lambda: unless_stopped(stop)).run()
        state = after(state, Happening.MATCH_MADE)
    if plan.matches:
        state = after(state, Happening.LAST_ROUND)
    elif summed(plan):
        kind = SecureStudy if plan.privacy.trust == SECURE else OpenStudy
        study = kind(conduct, cohort, registry, progress)
        for round_ in range(progress.round + 1, plan.training.rounds + 1):
            state = after(state, Happening.TASKS_SENT)
            progress = study.round(round_, lambda: unless_stopped(stop))
            state = after(after(state, Happening.ENOUGH_UPDATES), Happening.STORED)
            show(Seen("published", round_))
    else:
        progress, state = _rounds(conduct, cohort, registry, (progress, state), stop)
    if state is State.PUBLISHED:
        after(state, Happening.LAST_ROUND)
    conduct.close(cohort, progress)
    progress = with_news(progress, conduct.refusals, ())
    registry.publish(progress)
    return progress


def _unless_later(conduct: Conduct, cohort: Cohort, stop: Callable[[], bool]) -> None:
    """Raise where a study is to come back later, or was asked to stop while it waited for partners."""
    few = len(cohort) < conduct.plan.privacy.threshold
    if few or conduct.undecided:
        unless_stopped(stop)
    if not conduct.patience.again_later:
        return
    if conduct.undecided:
        rule = f"waits for the operators of {conduct.undecided} partners"
        raise Undecided(Fault("the study", rule, "each sees it with: coterie partner inbox FOLDER"))
    if few and not conduct.hopeless:
        rule = f"waits for partners to be online: {len(cohort)} of the {conduct.plan.privacy.threshold} that it needs"
        raise Undecided(Fault("the study", rule, "each starts its node with: coterie partner start FOLDER"))


def _rounds(
    conduct: Conduct, cohort: Cohort, registry: Registry, at: tuple[Progress, State], stop: Callable[[], bool]
) -> tuple[Progress, State]:
    """Take the rounds of a study whose releases are private on their own, from where it stands to the last."""
    plan, (progress, state) = conduct.plan, at
    strategy = PlanStrategy(plan, conduct.mechanisms, cohort, progress.adam)
    while progress.round < plan.training.rounds:
        unless_stopped(stop)
        round_ = progress.round + 1
        state = after(state, Happening.TASKS_SENT)
        replies = conduct.step(strategy, TRAIN, round_, progress.weights)
        arrays, _ = strategy.aggregate_train(round_, replies)
        registry.publish(_told(progress, conduct, strategy))
        state = after(state, Happening.TOO_FEW if arrays is None else Happening.ENOUGH_UPDATES)
        weights = tuple((arrays or ArrayRecord()).to_numpy_ndarrays())
        histograms = dict(progress.histograms)
        progress = replace(progress, round=round_, weights=weights, adam=strategy.adam)
        if round_ in plan.metrics.rounds:
            histograms[round_] = _measure(conduct, strategy, progress)
        progress = _told(replace(progress, histograms=histograms), conduct, strategy)
        registry.publish(progress)
        state = after(state, Happening.STORED)
        conduct.show(Seen("published", round_))
    return progress, state


def _measure(conduct: Conduct, strategy: PlanStrategy, progress: Progress) -> Mapping[str, NDArray[np.int64]]:
    replies = conduct.step(strategy, EVALUATE, progress.round, progress.weights)
    strategy.aggregate_evaluate(progress.round, replies)
    conduct.show(Seen("measured", progress.round))
    return dict(strategy.histograms)


def _fresh(signed: SignedPlan) -> Progress:
    plan = signed.plan
    weights = initial_weights(plan)
    return Progress(plan.digest(), 0, weights, AdamState.start(weights))


def _told(progress: Progress, conduct: Conduct, strategy: PlanStrategy) -> Progress:
    """Return the state with everything that was refused and received so far."""
    return with_news(progress, (*conduct.refusals, *strategy.rejected), strategy.receipts)


def _enough(count: int, threshold: int, happening: Happening) -> Happening:
    return happening if count >= threshold else Happening.TOO_FEW


def unless_stopped(stop: Callable[[], bool]) -> None:
    """Raise Interrupted when `stop` says so."""
    if stop():
        raise Interrupted(Fault("the study", "was interrupted", "go on with --resume"))
