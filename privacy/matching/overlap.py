"""How many customers partners share: unbiased noisy counts, those below the plan's least left out."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coterie.privacy.errors import Fault
from coterie.privacy.matching.decoys import CANARIES, cells_of, spread
from coterie.privacy.matching.errors import MatchFault
from coterie.privacy.matching.terms import COUNTS, MatchTerms
from coterie.privacy.matching.venn import Cell, check_canaries

__all__ = ["Estimate", "Overlap", "check_overlap", "overlap"]


@dataclass(frozen=True)
class Estimate:
    """A noisy count of customers.

    Args:
        partners: Whose customers it is about, in the roster's order; or of how many partners, as one text.
        customers: The count, rounded to nothing: it is whole as it comes; None where it is below the plan's least.
        deviation: Standard deviation of its noise, in customers.
    """

    partners: tuple[str, ...]
    customers: int | None
    deviation: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"partners": list(self.partners), "customers": self.customers, "deviation": self.deviation}


@dataclass(frozen=True)
class Overlap:
    """The noisy counts of a match.

    Leaks: what the events of all partners pay for; every number is a function of lists with dummies in them.

    Args:
        names: The partners, in the roster's order.
        least: Counts below it are None.
        sigma: Scale of the noise in the number of each set of dummies.
        width: K, dummies of each set.
        cells: For every set of partners, customers of exactly these.
        totals: For every partner, its customers.
        pairs: For every pair, customers of both.
        multiplicity: For k = 1, 2, ..., customers of exactly k partners; `partners` says k.
    """

    names: tuple[str, ...]
    least: int
    sigma: float
    width: int
    cells: tuple[Estimate, ...]
    totals: tuple[Estimate, ...]
    pairs: tuple[Estimate, ...]
    multiplicity: tuple[Estimate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        lists = {name: [one.to_dict() for one in getattr(self, name)] for name in _LISTS}
        fixed = {"names": list(self.names), "least": self.least, "sigma": self.sigma, "width": self.width}
        return {**fixed, **lists}

    @staticmethod
    def from_dict(table: object) -> "Overlap":
        """Read what `to_dict` gave.

        Raises:
            MatchFault: It is not that.
        """
        try:
            if not isinstance(table, dict):
                raise TypeError
            lists = {name: tuple(_estimate(one) for one in table[name]) for name in _LISTS}
            read = Overlap(**{**table, "names": tuple(table["names"]), **lists})
            if read.to_dict() != table:
                raise ValueError
        except (TypeError, ValueError, KeyError, AttributeError):
            raise MatchFault(Fault("counts", "are not those of a match", "use the same coterie")) from None
        return read


_LISTS = ("cells", "totals", "pairs", "multiplicity")


def overlap(terms: MatchTerms, raw: Mapping[Cell, int]) -> Overlap:
    """Turn raw numbers of cells into noisy counts of customers.

    Args:
        terms: The match.
        raw: What `venn.cells` counted.

    Raises:
        MatchFault: The match is not one that is counted.
        PeerFault: As `venn.check_canaries`.

    Guarantees:
        Every count is unbiased: what is taken off is the expectation of the dummies in it, the same for all cells.
        Only noisy counts are held against `least`.
    """
    if terms.outcome != COUNTS or terms.sigma is None:
        raise MatchFault(Fault("counts", "are given by a match that is counted alone", "this is a fault: report it"))
    check_canaries(terms, raw)
    names, width = terms.names, spread(terms.sigma)
    # Of each partner one set of dummies reaches into each cell, by K / 2 on average: into S from D(q, S), or by the
    # dummies that q left out of D(q, S with q).
    taken_off = len(names) * width // 2
    clean = {cell: count - taken_off for cell, count in raw.items()}
    clean[frozenset(names)] -= CANARIES
    every = [part for size in range(1, len(names) + 1) for part in itertools.combinations(names, size)]
    of = _Summing(terms, clean)
    return Overlap(
        names,
        terms.least,
        terms.sigma,
        width,
        tuple(of.sum(part, [frozenset(part)]) for part in every),
        tuple(of.sum((name,), [cell for cell in clean if name in cell]) for name in names),
        tuple(of.sum(pair, [cell for cell in clean if set(pair) <= cell]) for pair in itertools.combinations(names, 2)),
        tuple(of.sum((str(k),), [cell for cell in clean if len(cell) == k]) for k in range(1, len(names) + 1)),
    )


def check_overlap(terms: MatchTerms, told: Overlap) -> None:
    """Check that counts that came are of a match's partners and sets, with its noise, and that none is below its least.

    Args:
        terms: The match.
        told: What the partner who counted says.

    Raises:
        MatchFault: They are of other partners, sets or noise, or tell what is below the least.
    """
    names = terms.names
    every = (frozenset(part) for size in range(1, len(names) + 1) for part in itertools.combinations(names, size))
    nobody = {cell: CANARIES if cell == frozenset(names) else 0 for cell in every}
    if _untold(told) != _untold(overlap(terms, nobody)):
        raise MatchFault(Fault("counts", "are of other partners, sets or noise than the plan's", "ask who counted"))
    numbers = (each.customers for name in _LISTS for each in getattr(told, name))
    if any(number is not None and number < terms.least for number in numbers):
        raise MatchFault(Fault("counts", "tell what is below the plan's least", "ask who counted"))


def _untold(one: Overlap) -> Overlap:
    """Return counts without their numbers: whose they are, and with what noise."""
    bare: dict[str, Any] = {
        name: tuple(replace(each, customers=None) for each in getattr(one, name)) for name in _LISTS
    }
    return replace(one, **bare)


@dataclass(frozen=True)
class _Summing:
    """Sums over cells, with the deviation of their noise."""

    terms: MatchTerms
    clean: Mapping[Cell, int]

    def sum(self, partners: tuple[str, ...], cells: Iterable[Cell]) -> Estimate:
        chosen = set(cells)
        total = sum(self.clean[cell] for cell in chosen)
        customers = total if total >= self.terms.least else None
        return Estimate(partners, customers, (self.terms.sigma or 0.0) * math.sqrt(self._variance(chosen)))

    def _variance(self, chosen: set[Cell]) -> int:
        """Return the variance of a sum in units of sigma squared: each set's noise adds here, and takes off there."""
        squares = 0
        for name in self.terms.names:
            for part in cells_of(self.terms, name):
                cell = frozenset(part)
                squares += ((cell in chosen) - (cell - {name} in chosen)) ** 2
        return squares


def _estimate(table: Any) -> Estimate:  # noqa: ANN401 - what JSON holds
    read = Estimate(tuple(table["partners"]), table["customers"], table["deviation"])
    if read.to_dict() != table or type(read.customers) not in {int, type(None)}:
        raise ValueError
    return read
