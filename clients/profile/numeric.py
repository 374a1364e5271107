"""How a column of numbers stands to the contract's bounds, counted piece by piece."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.profile.facts import Bin, NumberFacts
from coterie.clients.tables.numbers import numbers_of
from coterie.privacy.contract import Column

__all__ = ["NumberTally", "bin_edges", "outward"]

_BINS = 10


def bin_edges(column: Column) -> NDArray[np.float64]:
    """Return all edges of a numeric column's bins: the contract's, or those of ten bins of equal width."""
    low, high = float(column.low or 0.0), float(column.high or 0.0)
    if column.edges:
        return np.array([low, *column.edges, high])
    return np.linspace(low, high, _BINS + 1)


def outward(number: float, *, up: int) -> float:
    """Return a number rounded to one significant digit, away from what it is the bound of.

    Args:
        number: Finite.
        up: 1 for an upper bound, -1 for a lower one.
    """
    if number == 0:
        return 0.0
    exact = Decimal(number)
    unit = Decimal(1).scaleb(exact.adjusted())
    return float((exact / unit).to_integral_value(ROUND_CEILING if up > 0 else ROUND_FLOOR) * unit)


class NumberTally:
    """What was found of a numeric column so far.

    Args:
        column: As the contract describes it.
    """

    def __init__(self, column: Column) -> None:
        self._edges = bin_edges(column)
        self._bins = np.zeros(len(self._edges) - 1, dtype=np.int64)
        self.missing = 0
        self._broken = self._commas = self._infinite = self._below = self._above = 0
        self._least, self._greatest = math.inf, -math.inf

    def add(self, values: pa.Array) -> None:
        """Take in some cells."""
        numbers = numbers_of(values)
        self._broken += numbers.broken
        self._commas += numbers.commas
        there = numbers.values[~np.isnan(numbers.values)]
        self.missing += len(numbers.values) - len(there) - numbers.broken
        self._infinite += int(np.isinf(there).sum())
        self._below += int((there < self._edges[0]).sum())
        self._above += int((there > self._edges[-1]).sum())
        finite = there[np.isfinite(there)]
        if len(finite):
            self._least = min(self._least, float(finite.min()))
            self._greatest = max(self._greatest, float(finite.max()))
        # A bin is [edge, next edge), as it is when the column is encoded.
        places = np.searchsorted(self._edges[1:-1], there, side="right")
        self._bins += np.bincount(places, minlength=len(self._bins))

    def facts(self) -> NumberFacts:
        """Return what was found."""
        some = self._least <= self._greatest
        pairs = zip(self._edges[:-1], self._edges[1:], self._bins, strict=True)
        return NumberFacts(
            broken=self._broken,
            commas=self._commas,
            infinite=self._infinite,
            below=self._below,
            above=self._above,
            least=outward(self._least, up=-1) if some else None,
            greatest=outward(self._greatest, up=1) if some else None,
            bins=tuple(Bin(low=float(low), high=float(high), rows=int(rows)) for low, high, rows in pairs),
        )
