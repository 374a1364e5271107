"""A partner's workspace at work, but for what has no bearing on numbers: files, the ledger, and masks, which cancel.

`OwnSums` and `SumNode` answer over it as they answer over a workspace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from coterie.clients.agreed import Agreed
from coterie.clients.interactions import OpenedHistories
from coterie.clients.sumnode import SumNode
from coterie.clients.task import SumTask
from coterie.models.histories import Histories
from coterie.privacy.calibration import calibrate
from coterie.privacy.charges import Charge
from coterie.privacy.events import Event
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import RandomSource, Stream
from coterie.privacy.sums import numbers_of
from coterie.simulations.attacks.canaries import PARTNER, Rows

__all__ = ["Desk", "People", "Unmasked"]

Integers = NDArray[np.int64]
People = Histories | Rows
T = TypeVar("T")


@dataclass(frozen=True)
class _Answer:
    """A vector as it was handed over for masking."""

    arrays: tuple[Integers, ...]
    event: Event


@dataclass(frozen=True)
class _Working:
    """A sum that is worked on, and what its streams are named by, in place of the secrets they are drawn from."""

    numbers: Any
    key: str


class _Charging:
    """A ledger that has room for everything and keeps nothing."""

    def answered(self, *_: object) -> None:
        """Say that nothing was answered before."""

    def afford(self, *_: object) -> None:
        """Let everything be afforded."""

    def reserve(self, *_: object, rows: str) -> None:
        """Reserve nothing; what the charge would commit to is forgotten."""

    def settle(self, *_: object) -> None:
        """Settle nothing."""


class Desk:
    """What answering for a sum asks of `clients.work.Work`, over made-up customers.

    Args:
        plan: The plan.
        people: The partner's customers: histories for a recommender, rows for a propensity model.
        random: Where sample and noise come from; None where nothing is drawn from it.
    """

    workspace = ledger = notes = None

    def __init__(self, plan: Plan, people: People, random: RandomSource | None) -> None:
        self.plan, self.people, self.random = plan, people, random
        self.name, self.charging = PARTNER, _Charging()

    def agreed(self, _: str) -> Agreed:
        """Return the plan with the events that a consent to it would have declared."""
        declared = calibrate(self.plan)
        policy: Any = None  # handed on to a ledger that does not look at it
        return Agreed(
            self.plan,
            policy,
            declared.update,
            declared.updates,
            declared.histogram,
            declared.histograms,
            declared.counting,
            declared.countings,
        )

    def charge(self, agreed: Agreed, step: str, attempt: int, what: tuple[str, Event]) -> Charge:
        """Return what a sum costs."""
        group, event = what
        name = self.random.name if self.random else "none"
        return Charge(agreed.plan.digest(), agreed.plan.purpose, step, attempt, group, event, name)

    def open_histories(self, _: Agreed) -> OpenedHistories:
        """Return the made-up customers."""
        mine: Any = self.people
        return OpenedHistories(mine, Histories(*(np.zeros(count, dtype=np.int64) for count in (1, 0, 0))), {})

    def open(self, *_: object) -> Rows:
        """Return the made-up rows: none has too many, and no table is checked."""
        return cast("Rows", self.people)

    def local(self, work: Callable[[], T], _: Plan) -> T:
        """Return what work on opened rows returns; what goes wrong in it is to be seen here."""
        return work()

    def keep(self, *_: object) -> str:
        """Keep no count of made-up customers: there is no ledger that would commit to it."""
        return ""

    def attributes(self, _: Agreed) -> None:
        """Return None: the plan has no attributes."""


class _Kept:
    """Secure sums whose vectors are kept as they are handed over for masking."""

    def __init__(self, random: RandomSource) -> None:
        self._random = random

    def ready(self, plan: Plan, task: SumTask, charge: Charge) -> _Working:
        """Return the numbers of the sum."""
        return _Working(numbers_of(plan, task.step), charge.key)

    def stream(self, working: _Working, purpose: str, table: str) -> Stream:
        """Return a stream of a sum and a purpose of its own."""
        return self._random.stream(f"{working.key}/{purpose}/{table}")

    def mask(self, _: Plan, __: _Working, vector: Integers, charge: Charge) -> _Answer:
        """Return the vector."""
        return _Answer((vector,), charge.event)


class Unmasked(SumNode):
    """A partner's node in secure sums, without the masks.

    Args:
        work: A `Desk`.
    """

    def __init__(self, work: Any) -> None:  # noqa: ANN401 - a stand-in for a workspace at work
        self._work = work
        kept: Any = _Kept(work.random)
        self._sums = kept
