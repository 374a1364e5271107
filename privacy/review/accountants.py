"""Epsilon recomputed by two accountants that share nothing, and how far they differ."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from coterie.privacy.accountant import ADD_REMOVE, CERTIFICATE, epsilon
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Event, Nothing, PoissonGaussian
from coterie.privacy.review.bracket import bracket

__all__ = ["ABSOLUTE", "ACCOUNTANTS", "RELATIVE", "Recomputed", "recomputed"]

# What the first may lie above the second's upper bound. Its grid of 1e-4 costs up to a cell for every noisy count
# (seen: half a cell) and, as "connect the dots" keeps the mean of e^-loss, a deviation of less than a cell, which
# adds up as a square root, for every gradient sum; beside that one part in fifty, so that agreement is no matter
# of luck, and 1e-3 for the sum of small things. Who halves a sigma or a rate does not pass.
RELATIVE = 0.02
ABSOLUTE = 1e-3
# Below the rigorous lower bound nothing is allowed but the rounding of a sum.
_ROUNDING = 1e-9

_FIRST = "privacy loss distribution, connect the dots, pessimistic (dp-accounting)"

ACCOUNTANTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        PoissonGaussian.kind: (
            _FIRST,
            "rounded losses of the mixture, tilted Fourier transform, both bounds (coterie)",
        ),
        DiscreteGaussian.kind: (_FIRST, "exact lattice masses, tilted Fourier transform, both bounds (coterie)"),
        DistributedGaussian.kind: (
            f"{_FIRST}, of the Gaussian that costs at least as much",
            "rounded losses of the mixture with that Gaussian, tilted Fourier transform, both bounds (coterie)",
        ),
        Nothing.kind: ("costs nothing by definition", "costs nothing by definition"),
    }
)


@dataclass(frozen=True)
class Recomputed:
    """One composition's epsilon, twice.

    Args:
        first: Epsilon in nats by the first accountant, meant as an upper bound.
        low: The second accountant's rigorous lower bound on the true epsilon.
        high: Its rigorous upper bound.
        delta: At which all three hold.
        relation: What neighbouring data sets differ in.
        copies: At how many partners the events are charged to the person.
        grid: What the first's grid may add, in nats.
        accountants: (kind of event, first accountant, second accountant), sorted, of the kinds that occur.
    """

    first: float
    low: float
    high: float
    delta: float
    relation: str
    copies: int
    grid: float
    accountants: tuple[tuple[str, str, str], ...]

    @property
    def disagreement(self) -> float:
        """How far the first lies outside [low, high], as a part of high; 0 inside."""
        outside = max(0.0, self.first - self.high, self.low - self.first)
        if outside == 0:
            return 0.0
        return outside / self.high if self.high > 0 else math.inf

    @property
    def understates(self) -> bool:
        """Whether the first lies below what the second proves to be reached: it is then no upper bound."""
        return self.first < self.low * (1 - _ROUNDING) - _ROUNDING

    @property
    def agrees(self) -> bool:
        """Whether the first is an upper bound, and not above the second's by more than its grid explains."""
        within = self.first <= self.high * (1 + RELATIVE) + ABSOLUTE + self.grid
        return math.isfinite(self.high) and within and not self.understates

    def __str__(self) -> str:
        """Print both, with their disagreement."""
        verdict = "agree" if self.agrees else "DISAGREE"
        return (
            f"epsilon {self.first:.4g} by the first accountant; between {self.low:.4g} and {self.high:.4g} by the "
            f"second, at delta {self.delta:g} ({self.relation}); outside by {100 * self.disagreement:.2g} %: {verdict}"
        )


def recomputed(events: Iterable[Event], delta: float, *, relation: str = ADD_REMOVE, copies: int = 1) -> Recomputed:
    """Recompute epsilon by both accountants.

    Args:
        events: Their order does not matter.
        delta: As in `bracket`. Below about 1e-10 the first accountant's own round-off, which it does not bound,
            may take it below the truth; this is then seen as a disagreement.
        relation: `ADD_REMOVE` or `REPLACE_ONE`.
        copies: k, for a person whose events are charged at k partners.

    Raises:
        ValueError: A delta that the second accountant refuses.
        KeyError: An unknown relation.
        TypeError: Something that is no event.

    Guarantees:
        low <= true epsilon <= high (`bracket`), whatever the first accountant does.
    """
    composed = tuple(events)
    second = bracket(composed, delta, relation=relation, copies=copies)
    first = epsilon(composed, delta, relation=relation, copies=copies, grid=CERTIFICATE)
    kinds = sorted({event.kind for event in composed})
    named = tuple((kind, *ACCOUNTANTS[kind]) for kind in kinds)
    return Recomputed(first, second.low, second.high, delta, relation, copies, _grid(composed, copies), named)


def _grid(events: tuple[Event, ...], copies: int) -> float:
    """Return what the first accountant's grid may add, in nats; a replaced customer changes two counts."""
    counts = sum(2 * event.count for event in events if isinstance(event, DiscreteGaussian))
    sums = sum(event.steps for event in events if isinstance(event, PoissonGaussian | DistributedGaussian))
    return CERTIFICATE * (copies * counts + math.sqrt(copies * sums))
