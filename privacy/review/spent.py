"""The budgets again, from the entries alone: sums of Rényi curves, held against each policy that was in force.

Nothing is shared with the partner's own book-keeping but the meaning of an event: curves come from `divergence.py`,
which does not use the library that the partner's software uses.
"""

import functools
import sys
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.charges import Charge, Limit, spans_of, year_of
from coterie.privacy.events import Event
from coterie.privacy.policy import Policy, all_limits, limits
from coterie.privacy.renyi import Filter
from coterie.privacy.review.divergence import direct_curve

__all__ = ["Charged", "Spent", "gate", "moves_order", "runs_left"]

TOLERANCE = 1e-9  # of a capacity: two ways to sum the same numbers differ in the last digits
_EVERYBODY = ""

Charged = tuple[tuple[tuple[Event, int], ...], ...]
"""For every kind of customer that there is, what it was charged: events, each with how many times."""


@functools.cache
def gate(budget: Filter) -> tuple[int, float]:
    """Return the index of a filter's order, and its capacity there."""
    return budget.index, budget.capacity


def moves_order(before: Policy, after: Policy) -> bool:
    """Return whether a budget's filter works at another order under a new policy."""
    old, new = ({limit.span: gate(limit.budget)[0] for limit in all_limits(policy, 0)} for policy in (before, after))
    return any(old[span] != new[span] for span in old.keys() & new.keys())


@functools.lru_cache(maxsize=4096)
def _asked(event: Event) -> NDArray[np.float64]:
    return np.array(direct_curve([event]))


class Spent:
    """What is spent after some entries, by group, span and segment."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
        self._events: dict[str, dict[str, Counter[Event]]] = {}
        self._limits: dict[tuple[str, int], tuple[Limit, ...]] = {}
        self._policy: Policy | None = None

    def under(self, policy: Policy) -> None:
        """Go on under another policy."""
        self._policy = policy
        self._limits = {}

    @property
    def policy(self) -> Policy | None:
        """The policy in force, or None before the first."""
        return self._policy

    def add(self, charge: Charge, at: str) -> tuple[tuple[Limit, float], ...]:
        """Add a charge.

        Args:
            charge: What was charged.
            at: Time of its entry.

        Returns:
            Each budget that the charge counts in with its share afterwards; above 1 where it is exceeded.
        """
        asked = _asked(charge.event)
        counted = self._events.setdefault(charge.group, {})
        for segment in charge.segments or (_EVERYBODY,):
            counted.setdefault(segment, Counter())[charge.event] += 1
        for span in spans_of(charge.purpose, at):
            sums = self._sums.setdefault((charge.group, span), {})
            for segment in charge.segments or (_EVERYBODY,):
                known = sums.get(segment)
                if known is None:
                    sums[segment] = asked.copy()
                else:
                    known += asked
        return tuple(
            (limit, self.share(limit, charge.group, charge.segments)) for limit in self._kept(charge.purpose, at)
        )

    def share(self, limit: Limit, group: str, segments: tuple[str, ...] = ()) -> float:
        """Return which part of a budget's capacity is spent for the worst customer of a group; not cut off at 1."""
        index, capacity = gate(limit.budget)
        spent = self.at(limit, group, segments)[index]
        if spent <= 0:
            return 0.0
        return float(spent / capacity) if capacity > 0 else sys.float_info.max

    def at(self, limit: Limit, group: str, segments: tuple[str, ...] = ()) -> NDArray[np.float64]:
        """Return the curve of what the worst customer of a group has spent of a budget."""
        sums = self._sums.get((group, limit.span), {})
        everybody = sums.get(_EVERYBODY)
        if len(sums) == 1 and everybody is not None:
            return everybody
        own = [spent for segment, spent in sums.items() if segment and (not segments or segment in segments)]
        worst = np.max(own, axis=0) if own else np.zeros(len(_ZERO))
        return worst + (everybody if everybody is not None else _ZERO)

    def most(self, year: int) -> float:
        """Return the greatest share that is spent of any budget of the policy in force; 0 where there is none."""
        return max(
            (self.share(limit, group) for limit in self.all_limits(year) for group in self.groups()), default=0.0
        )

    def for_life(self, group: str) -> tuple[float, ...]:
        """Return the curve of what the worst customer of a group has spent over all studies."""
        return tuple(float(value) for value in self.at(Limit(Filter(1.0, 0.5)), group))

    def events(self, group: str) -> Charged:
        """Return what a group was charged over all studies, for the customers of each segment that paid."""
        counted = self._events.get(group, {})
        everybody = counted.get(_EVERYBODY, Counter())
        own = [events + everybody for segment, events in counted.items() if segment] or [everybody]
        return tuple(tuple(events.items()) for events in own)

    def groups(self) -> tuple[str, ...]:
        """Return the groups that anything was charged to, sorted."""
        return tuple(sorted({group for group, _ in self._sums}))

    def all_limits(self, year: int) -> tuple[Limit, ...]:
        """Return every budget of the policy in force, each once, with the year's."""
        return all_limits(self._policy, year) if self._policy is not None else ()

    def _kept(self, purpose: str, at: str) -> tuple[Limit, ...]:
        if self._policy is None:
            return ()
        key = (purpose, year_of(at))
        if key not in self._limits:
            self._limits[key] = limits(self._policy, *key)
        return self._limits[key]


_ZERO = np.array(direct_curve([]))


def runs_left(limit: Limit, spent: NDArray[np.float64], events: Mapping[Event, int]) -> int:
    """Return how many more runs with these events fit into a budget."""
    index, capacity = gate(limit.budget)
    cost = sum(float(_asked(event)[index]) * count for event, count in events.items())
    return max(0, int((capacity - float(spent[index])) / cost)) if cost > 0 else 0
