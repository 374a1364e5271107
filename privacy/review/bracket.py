"""A second accountant: rigorous bounds from both sides on what a composition of events costs.

It shares no code and no method with the first (`accountant.py`). Every loss is rounded down to a grid
(`lattice.py`) and the roundings' sum is bounded; the rounded losses are composed by fast Fourier transforms
(`tail.py`), as Koskela, Jälkö and Honkela do ("Computing Tight Differential Privacy Guarantees Using FFT", 2020,
arXiv 1906.03049) and Meiser and Mohammadi before them ("Tight on Budget?", 2018). One composition gives both
bounds: the true loss exceeds the rounded one by something between two known numbers.

Round-off: without tilting, the transforms' errors reach about 1e-15 times the number of steps and make bounds
useless below a delta of 1e-10. The tilted law makes the error relative to delta instead, and it is part of the
bounds, so the accountant holds down to `LEAST_DELTA`; below, masses of single steps near float64's smallest
number, and the question is refused.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.accountant import ADD_REMOVE, REPLACE_ONE
from coterie.privacy.events import DiscreteGaussian, Event, Nothing, PoissonGaussian, copies_of
from coterie.privacy.review.lattice import lattices, span
from coterie.privacy.review.tail import Parts, Plan, Tail, least, moved, planned, spread, tail

__all__ = ["LEAST_DELTA", "MOST_DELTA", "Bracket", "bracket", "deltas"]

LEAST_DELTA, MOST_DELTA = 1e-100, 0.5

_SHARE = 1e-4  # of delta: what truncation and the sum of roundings may each take
_GRAIN = 1e-16  # the same where delta is what is asked for
_LEAST_SHOWN = 1e-12  # there: smaller ones are bounded with the tilt of this one
_GAP = 0.008  # of epsilon, between low and high
_EASED = 0.75  # of Chernoff's tilt: heavy tails then need a much smaller window, and no digits are missed
_ATTEMPTS = 3
_PASSES = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bracket:
    """What the true value lies between.

    Args:
        low: At least 0.
        high: At least `low`; infinite where nothing could be proved.
    """

    low: float
    high: float


@dataclass(frozen=True)
class _Side:
    """A composition in one direction: how often which step, and the probability that may be neglected."""

    steps: tuple[tuple[Event, int], ...]
    relation: str
    added: bool
    grain: float

    @property
    def reach(self) -> int:
        """How many standard deviations hold all but `grain` of all steps' mass; by threes, so that lattices recur."""
        times = sum(count for _, count in self.steps)
        return 3 * max(1, math.ceil(math.sqrt(2 * math.log(times / self.grain)) / 3))

    def at(self, step: float) -> Parts:
        """Return the lattices of this width."""
        return [(lattices(event, self.relation, step, self.reach)[self.added], n) for event, n in self.steps]

    def coarse(self, cells: int) -> Parts:
        """Return lattices of about so many cells, to plan with."""
        widest = max(span(event, self.relation, self.reach) for event, _ in self.steps)
        return self.at(2.0 ** math.floor(math.log2(widest / cells)))


def bracket(events: Iterable[Event], delta: float, *, relation: str = ADD_REMOVE, copies: int = 1) -> Bracket:
    """Bound the true epsilon of the composition of `events` from both sides.

    Args:
        events: Their order does not matter.
        delta: In [`LEAST_DELTA`, `MOST_DELTA`].
        relation: `ADD_REMOVE` (the worse of both directions) or `REPLACE_ONE`.
        copies: k, for a person whose events are charged at k partners; at least 1.

    Returns:
        Epsilon in nats.

    Raises:
        ValueError: A delta out of range.
        KeyError: An unknown relation.
        TypeError: Something that is no event.

    Guarantees:
        low <= epsilon <= high for the pairs of `lattice.py`: the equations of `tail.py` (Hoeffding 1963, theorem
        2, for the roundings) with those of Koskela, Jälkö and Honkela 2020 for what the grid leaves out.
    """
    if not LEAST_DELTA <= delta <= MOST_DELTA:
        raise ValueError(f"delta must lie in [{LEAST_DELTA:g}, {MOST_DELTA:g}]")
    worst = Bracket(0.0, 0.0)
    for side in _sides(events, relation, copies, delta * _SHARE):
        one = _epsilon(side, delta, worst.low)
        worst = Bracket(max(worst.low, one.low), max(worst.high, one.high))
    return worst


def deltas(
    events: Iterable[Event], epsilons: Sequence[float], *, relation: str = ADD_REMOVE, copies: int = 1
) -> tuple[Bracket, ...]:
    """Bound the true delta of the composition of `events` at several epsilons from both sides.

    Args:
        events: Their order does not matter.
        epsilons: In nats, at least 0, in any order.
        relation: As in `bracket`.
        copies: As in `bracket`.

    Returns:
        Delta at each epsilon, in [0, 1]; upper bounds do not fall below about 1e-15.

    Raises:
        KeyError: An unknown relation.
        TypeError: Something that is no event.

    Guarantees:
        As `bracket`. A few tilts are tried, each of which proves bounds at every epsilon; the best are kept.
    """
    if not epsilons:
        return ()
    at = sorted(epsilons)
    tried = sorted({at[round(i * (len(at) - 1) / (_PASSES - 1))] for i in range(_PASSES)})
    lows, highs = np.zeros(len(at)), np.zeros(len(at))
    for side in _sides(events, relation, copies, _GRAIN):
        read = [_read(_around(side, epsilon), epsilons) for epsilon in tried]
        lows = np.maximum(lows, np.max([low for low, _ in read], axis=0))
        highs = np.maximum(highs, np.min([high for _, high in read], axis=0))
    return tuple(Bracket(float(low), float(high)) for low, high in zip(lows, highs, strict=True))


def _sides(events: Iterable[Event], relation: str, copies: int, grain: float) -> tuple[_Side, ...]:
    """Return the directions that differ; of nothing, none."""
    if relation not in (ADD_REMOVE, REPLACE_ONE):
        raise KeyError(relation)
    steps: dict[Event, int] = {}
    for told in events:
        # Contributions to one secure sum share its noise; every other release has noise of its own.
        event = copies_of(told, copies)
        if isinstance(event, PoissonGaussian):
            one: Event = PoissonGaussian(event.noise_multiplier, event.sample_rate, 1)
            steps[one] = steps.get(one, 0) + event.steps * copies
        elif isinstance(event, DiscreteGaussian):
            # A replaced customer leaves one count and enters another.
            one, counts = DiscreteGaussian(event.sigma, 1), 2 if relation == REPLACE_ONE else 1
            steps[one] = steps.get(one, 0) + event.count * copies * counts
        elif not isinstance(event, Nothing):
            raise TypeError(f"{type(event).__name__} has no privacy loss")
    if not steps:
        return ()
    sampled = any(isinstance(event, PoissonGaussian) and event.sample_rate < 1 for event in steps)
    directions = (False, True) if sampled and relation == ADD_REMOVE else (False,)
    return tuple(_Side(tuple(steps.items()), relation, added, grain) for added in directions)


def _epsilon(side: _Side, delta: float, known: float) -> Bracket:
    """Bound epsilon; where the first grid leaves a gap that matters beside what is known, try finer ones."""
    best, step = Bracket(0.0, math.inf), math.inf
    for attempt in range(_ATTEMPTS):
        coarse = side.coarse(2 ** (12 + 2 * attempt))
        tilt, guess = _tilted(coarse, delta)
        wanted = _GAP / 2 * max(guess, known) / 4**attempt
        plan = planned(coarse, _EASED * tilt, guess if attempt == 0 else 0.0, wanted=wanted, grain=side.grain)
        if plan.step >= step:  # as fine as a grid may be
            break
        seen, step = _seen(side, plan), plan.step
        proved, refuted = np.flatnonzero(seen.above <= delta), np.flatnonzero(seen.below > delta)
        high = max(0.0, float(seen.losses[proved[0]]) + seen.up) if len(proved) else math.inf
        low = max(0.0, float(seen.losses[refuted[-1]]) + seen.down) if len(refuted) else 0.0
        best = Bracket(max(best.low, low), min(best.high, high))
        if best.high <= known or best.high - best.low <= _GAP * best.high:
            break
    return best


def _tilted(parts: Parts, delta: float) -> tuple[float, float]:
    """Return the tilt at which Chernoff's bound on epsilon is least, and the bound."""
    return least(lambda theta: (moved(parts, theta) - math.log(delta)) / theta)


def _around(side: _Side, epsilon: float) -> Tail:
    coarse = side.coarse(2**12)
    tilt, _ = least(lambda theta: moved(coarse, theta) - theta * epsilon)
    spreading = spread(coarse)
    wanted = max(min(0.05 / (1 + tilt), 0.02 * spreading), 1e-3 * max(spreading, epsilon))
    steepest, furthest = _tilted(coarse, _LEAST_SHOWN)
    if epsilon > furthest:  # there delta is below what is told apart from 0
        tilt, epsilon = steepest, furthest
    return _seen(side, planned(coarse, _EASED * tilt, epsilon, wanted=wanted, grain=side.grain))


def _seen(side: _Side, plan: Plan) -> Tail:
    return tail(side.at(plan.step), plan)


def _read(seen: Tail, epsilons: Sequence[float]) -> tuple[Floats, Floats]:
    """Return lower and upper bounds on delta at every epsilon; delta falls as epsilon rises."""
    at, step = np.asarray(epsilons, dtype=np.float64), float(seen.losses[1] - seen.losses[0])
    last = len(seen.losses) - 1
    left = np.floor((at - seen.up - seen.losses[0]) / step).astype(np.int64)
    right = np.ceil((at - seen.down - seen.losses[0]) / step).astype(np.int64)
    high = np.where(left < 0, 1.0, seen.above[np.clip(left, 0, last)])
    low = np.where(right > last, 0.0, seen.below[np.clip(right, 0, last)])
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
