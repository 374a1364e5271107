"""A study with secure aggregation: every step is a secure sum, and the coordinator takes it.

A round is an epoch of as many sums as it has local steps, and one of its own for the histograms. Every opened step is
published before the next is asked for. A sum that fails is tried anew, in a new epoch and charged anew, while the plan
has spare attempts.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import weight_shapes
from coterie.models.propensity import Weights
from coterie.privacy.errors import Fault
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.plan import Plan, Secure
from coterie.privacy.schedule import EVALUATE, TRAIN, releases_of
from coterie.privacy.secagg.opening import Opened
from coterie.privacy.sums import most_epochs
from coterie.server.cohort import Cohort
from coterie.server.conduct import Conduct, Seen
from coterie.server.optimizers import OptimizerState, advance, optimizer_settings, published, split_flat
from coterie.server.registry import Progress, Registry, with_news
from coterie.server.rounds import StudyAborted
from coterie.server.sums import SecureSums, SumFailed

__all__ = ["ALL", "SecureStudy"]

ALL = "all partners"
"""Whose histogram a sum is."""

_SET_UPS = 3  # tries of one set-up, which charges nothing


class SecureStudy:
    """The sums of one run of one study.

    Args:
        conduct: What asks.
        cohort: The partners that consented.
        registry: Where every step is published.
        progress: Where the study stands.
    """

    def __init__(self, conduct: Conduct, cohort: Cohort, registry: Registry, progress: Progress) -> None:
        self._conduct, self._cohort, self._registry = conduct, cohort, registry
        self._plan: Plan = conduct.plan
        self._settings = optimizer_settings(self._plan, self._plan.secure or Secure())
        self.progress = replace(progress, optimizer=progress.optimizer or OptimizerState.start(progress.weights))
        self._sums: SecureSums | None = None
        self._interrupted = bool(progress.opening)  # partners may still have that epoch open

    def round(self, round_: int, unless_stopped: Callable[[], None]) -> Progress:
        """Take a round's steps that are not taken yet; every one is published.

        Raises:
            StudyAborted: A sum failed more often than the plan has spare attempts for.
        """
        names = releases_of(self._plan, round_)
        steps = [name for name in names if name.startswith(f"{TRAIN}/")]
        for name in steps:
            number = int(name.partition("/")[2])
            if number <= self.progress.step:
                continue
            unless_stopped()
            rest = tuple(step for step in steps if int(step.partition("/")[2]) >= number)
            self._step(name, number, rest, round_)
        self._sums = None
        # The round is over when it is measured: whoever resumes before that measures it.
        progress = self._measured(self.progress, round_) if f"{EVALUATE}/{round_}" in names else self.progress
        self.progress = self._news(replace(progress, round=round_))
        self._registry.publish(self.progress)
        return self.progress

    def _step(self, name: str, number: int, rest: tuple[str, ...], round_: int) -> None:
        state = self.progress.optimizer or OptimizerState.start(self.progress.weights)
        shapes = weight_shapes(self._plan)
        size = sum(int(np.prod(shape)) for shape in shapes)
        opened = self._opened(name, rest, state.weights, size=size, round_=round_)
        state = advance(self._settings, state, self._gradient(opened, shapes))
        weights = published(self._settings, state)
        news = replace(self.progress, step=number, attempt=0, optimizer=state, weights=weights)
        self.progress = self._news(news)
        self._registry.publish(self.progress)

    def _measured(self, progress: Progress, round_: int) -> Progress:
        """Add the round's histogram; without enough partners there is none, and the study goes on."""
        name, bins = f"{EVALUATE}/{round_}", self._plan.metrics.bins
        self.progress = progress
        try:
            opened = self._opened(name, (name,), progress.weights, size=2 * bins, round_=round_)
        except StudyAborted:
            return self._news(replace(self.progress, attempt=0))
        self.progress = self._news(replace(self.progress, attempt=0))
        self._sums = None
        units = self._event(name).sensitivity
        counts = np.rint(opened.total / units).astype(np.int64).reshape(2, bins)
        self._conduct.show(Seen("measured", round_))
        return self._news(replace(self.progress, histograms={**progress.histograms, round_: {ALL: counts}}))

    def _opened(self, name: str, rest: tuple[str, ...], weights: Weights, *, size: int, round_: int) -> Opened:
        """Make a sum, in the epoch that is open or in a new one; anew while there are spare attempts."""
        for attempt in range(self.progress.attempt or 1, 2 + self._plan.training.spare):
            self.progress = replace(self.progress, attempt=attempt)
            try:
                sums = self._sums or self._set_up(rest, round_)
                opened = sums.total(name, attempt, weights, size=size, event=self._event(name))
            except SumFailed:
                self._sums = None
                continue
            return opened
        fix = "see who was missing and why, then resume, or plan anew with spare attempts"
        raise self._aborted(Fault(name, "was not opened in any attempt that the plan has", fix))

    def _set_up(self, steps: tuple[str, ...], round_: int) -> SecureSums:
        """Begin a new epoch.

        Raises:
            StudyAborted: Too few partners answered, or the plan has no epochs left.
        """
        for number, names in self._epochs(steps):
            self.progress = replace(self.progress, epoch=number, opening=names)
            self._registry.publish(self.progress)
            sums = SecureSums(self._conduct, self._cohort, number=number, steps=names, round_=round_)
            try:
                sums.set_up()
            except SumFailed:
                continue
            sums.leave_out(self._gone(names))
            self._sums = sums
            return sums
        if self.progress.epoch >= most_epochs(self._plan):
            rule, fix = "has begun every set-up that its partners answer", "see why they failed, and propose a new plan"
        else:
            rule, fix = "had too few partners to set up its sums", "see who was missing and why, then resume"
        raise self._aborted(Fault(f"round {round_}", rule, fix))

    def _aborted(self, fault: Fault) -> StudyAborted:
        """Publish who did not answer what, and return the end of the study."""
        self.progress = self._news(self.progress)
        self._registry.publish(self.progress)
        return StudyAborted(fault)

    def _epochs(self, steps: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the epoch that an interruption left open, if these sums are of it, and then new ones.

        The same questions in it have the same answers, so that a sum that was asked for is opened without a new charge.
        """
        if self._interrupted and set(steps) <= set(self.progress.opening):
            self._interrupted = False
            yield self.progress.epoch, self.progress.opening
        self._interrupted = False
        for _ in range(_SET_UPS):
            if self.progress.epoch < most_epochs(self._plan):
                yield self.progress.epoch + 1, steps

    def _gone(self, steps: tuple[str, ...]) -> set[str]:
        """Return who dropped out of the sum that was opened last, where that was in this epoch: it is out of it."""
        last = f"{TRAIN}/{self.progress.step}"
        if last not in steps:
            return set()
        return set(self._cohort.nodes) - {r.partner for r in self.progress.receipts if r.step == last}

    def _gradient(self, opened: Opened, shapes: tuple[tuple[int, ...], ...]) -> list[NDArray[np.float64]]:
        """Return the mean gradient: the sum over public constants, those of the partners that are in it."""
        training = self._plan.training
        declared = sum(p.customers for p in self._plan.partners if p.name in opened.survivors)
        scale = training.clip / self._event(f"{TRAIN}/1").sensitivity / (training.sample_rate * declared)
        return split_flat(opened.total.astype(np.float64) * scale, shapes)

    def _event(self, name: str) -> DistributedGaussian:
        mechanisms = self._conduct.mechanisms
        event = mechanisms.update if name.startswith(f"{TRAIN}/") else mechanisms.histogram
        if not isinstance(event, DistributedGaussian):
            raise TypeError("the plan has no secure sums")
        return event

    def _news(self, progress: Progress) -> Progress:
        """Return the state with everything that was refused and received so far."""
        receipts = self._sums.receipts if self._sums is not None else ()
        return with_news(progress, self._conduct.refusals, receipts)
