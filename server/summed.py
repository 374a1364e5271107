"""A study whose every step is a sum of whole numbers: what secure sums and partners' own sums have in common.

Every step is published before the next is asked for. How a sum comes about, and how often it is tried, is the business
of `securely.py` and `openly.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from coterie.models.propensity import Weights
from coterie.privacy.errors import Fault
from coterie.privacy.plan import Plan
from coterie.privacy.schedule import EVALUATE, releases_of, trained
from coterie.server.cohort import Cohort
from coterie.server.conduct import Conduct, Seen
from coterie.server.optimizers import OptimizerState
from coterie.server.registry import Counts, Progress, Registry
from coterie.server.rounds import StudyAborted
from coterie.server.steps import Total, size_of, stepped, told

__all__ = ["SummedStudy"]


class SummedStudy(ABC):
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
        self.progress = replace(progress, optimizer=progress.optimizer or OptimizerState.start(progress.weights))

    def round(self, round_: int, unless_stopped: Callable[[], None]) -> Progress:
        """Take a round's steps that are not taken yet; every one is published.

        Raises:
            StudyAborted: A sum failed more often than the plan has spare attempts for.
        """
        names = releases_of(self._plan, round_)
        order = {name: place for place, name in enumerate(trained(self._plan), start=1)}
        steps = [name for name in names if name in order]
        for place, name in enumerate(steps):
            if order[name] <= self.progress.step:
                continue
            unless_stopped()
            kind = name.partition("/")[0]
            rest = tuple(step for step in steps[place:] if step.partition("/")[0] == kind)
            self._step(name, order[name], rest, round_)
        self._round_over()
        # The round is over when it is measured: whoever resumes before that measures it.
        if f"{EVALUATE}/{round_}" in names:
            self._measure(round_)
        self.progress = self._news(replace(self.progress, round=round_))
        self._registry.publish(self.progress)
        return self.progress

    @abstractmethod
    def _opened(self, name: str, rest: tuple[str, ...], weights: Weights, *, size: int, round_: int) -> Total:
        """Make a sum; `rest` are the sums of its kind from here to the end of the round.

        Raises:
            StudyAborted: It was not opened in any attempt that the plan has.
        """

    @abstractmethod
    def _histograms(self, name: str, round_: int) -> Counts | None:
        """Return a round's noisy histograms, int64, by whose customers they count; None where too few came.

        Raises:
            StudyAborted: Likewise.
        """

    @abstractmethod
    def _round_over(self) -> None:
        """Forget what was for the sums of a round's training alone."""

    def _step(self, name: str, number: int, rest: tuple[str, ...], round_: int) -> None:
        state = self.progress.optimizer or OptimizerState.start(self.progress.weights)
        opened = self._opened(name, rest, state.weights, size=size_of(self._plan, name), round_=round_)
        state = stepped(self._plan, state, name, opened)
        weights = told(self._plan, state)
        news = replace(self.progress, step=number, attempt=0, optimizer=state, weights=weights)
        self.progress = self._news(news)
        self._registry.publish(self.progress)

    def _measure(self, round_: int) -> None:
        """Add the round's histograms; without enough partners there are none, and the study goes on."""
        try:
            found = self._histograms(f"{EVALUATE}/{round_}", round_)
        except StudyAborted:
            found = None
        self.progress = self._news(replace(self.progress, attempt=0))
        if found is not None:
            self._conduct.show(Seen("measured", round_))
            self.progress = replace(self.progress, histograms={**self.progress.histograms, round_: found})

    def _not_opened(self, name: str) -> StudyAborted:
        fix = "see who was missing and why, then resume, or plan anew with spare attempts"
        return self._aborted(Fault(name, "was not opened in any attempt that the plan has", fix))

    def _aborted(self, fault: Fault) -> StudyAborted:
        """Publish who did not answer what, and return the end of the study."""
        self.progress = self._news(self.progress)
        self._registry.publish(self.progress)
        return StudyAborted(fault)

    @abstractmethod
    def _news(self, progress: Progress) -> Progress:
        """Return the state with everything that was refused and received so far."""
