"""A study with secure aggregation: every step is a secure sum, and the coordinator takes it.

A round is an epoch of as many sums as it has local steps, and one of its own for the histograms; a recommender's count
of items has one before all else. A sum that fails is tried anew, in a new epoch and charged anew, while the plan has
spare attempts.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coterie.models.propensity import Weights
from coterie.privacy.errors import Fault
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.schedule import COUNT, TRAIN, trained
from coterie.privacy.sums import most_epochs
from coterie.server.cohort import Cohort
from coterie.server.conduct import Conduct
from coterie.server.registry import Counts, Progress, Registry, with_news
from coterie.server.steps import Total
from coterie.server.summed import SummedStudy
from coterie.server.sums import SecureSums, SumFailed

__all__ = ["ALL", "SecureStudy"]

ALL = "all partners"
"""Whose histogram a sum is."""

_SET_UPS = 3  # tries of one set-up, which charges nothing


class SecureStudy(SummedStudy):
    """The secure sums of one run of one study; arguments as `SummedStudy`."""

    def __init__(self, conduct: Conduct, cohort: Cohort, registry: Registry, progress: Progress) -> None:
        super().__init__(conduct, cohort, registry, progress)
        self._sums: SecureSums | None = None
        self._interrupted = bool(progress.opening)  # partners may still have that epoch open

    def _round_over(self) -> None:
        self._sums = None

    def _histograms(self, name: str, round_: int) -> Counts | None:
        shape = self._plan.histogram_shape
        size = math.prod(shape)
        opened = self._opened(name, (name,), self.progress.weights, size=size, round_=round_)
        self.progress = self._news(replace(self.progress, attempt=0))
        self._sums = None
        units = self._event(name).sensitivity // self._plan.parts
        return {ALL: np.rint(opened.total / units).astype(np.int64).reshape(shape)}

    def _opened(self, name: str, rest: tuple[str, ...], weights: Weights, *, size: int, round_: int) -> Total:
        """Make a sum, in the epoch that is open or in a new one; anew while there are spare attempts."""
        for attempt in range(self.progress.attempt or 1, 2 + self._plan.training.spare):
            self.progress = replace(self.progress, attempt=attempt)
            try:
                sums = self._sums if self._sums and name in self.progress.opening else self._set_up(rest, round_)
                opened = sums.total(name, attempt, weights, size=size, event=self._event(name))
            except SumFailed:
                self._sums = None
                continue
            return Total(opened.total, opened.survivors)
        raise self._not_opened(name)

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
        last = trained(self._plan)[self.progress.step - 1] if self.progress.step else ""
        if last not in steps:
            return set()
        return set(self._cohort.nodes) - {r.partner for r in self.progress.receipts if r.step == last}

    def _event(self, name: str) -> DistributedGaussian:
        made, kind = self._conduct.mechanisms, name.partition("/")[0]
        event = {COUNT: made.counting, TRAIN: made.update}.get(kind, made.histogram)
        if not isinstance(event, DistributedGaussian):
            raise TypeError("the plan has no secure sums")
        return event

    def _news(self, progress: Progress) -> Progress:
        """Return the state with everything that was refused and received so far."""
        receipts = self._sums.receipts if self._sums is not None else ()
        return with_news(progress, self._conduct.refusals, receipts)
