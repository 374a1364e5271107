"""How many different values a column holds, a fair sample of them, and how often the commonest comes.

Memory is fixed, whatever the rows:
- up to `SAMPLE` different values are counted exactly; more are estimated from the `SAMPLE` least hashes (Beyer, Haas,
  Reinwald, Sismanis and Gemulla 2007: (k - 1) / U_k is unbiased, its relative error about 1 / sqrt(k - 2),
  here 0.7 %). The values that belong to these hashes are a uniform sample of the different values;
- counts of the commonest values are those of Misra and Gries (1982), merged as in Agarwal et al. (2012):
  never too high, and too low by at most rows / (counters + 1).
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["SAMPLE", "Different", "Frequent"]

SAMPLE = 20_000
"""Different values that are kept of a column, and up to which they are counted exactly."""

_COUNTERS = 1000
_CLIPPED = 120  # characters of a kept value


class Different:
    """The different values of a column, so far.

    Args:
        most: Values that are kept.
    """

    def __init__(self, most: int = SAMPLE) -> None:
        self._most = most
        self._hashes = np.empty(0, dtype=np.uint64)
        self._values = pa.array([], pa.string())
        self._full = False

    def add(self, hashes: NDArray[np.uint64], values: pa.Array) -> None:
        """Take in values that differ among themselves, with their hashes, shape (values,) each.

        Args:
            hashes: Of the values.
            values: Of one type that has texts.
        """
        low = np.flatnonzero(hashes < self._hashes[-1]) if self._full else np.arange(len(hashes))
        new = low[~np.isin(hashes[low], self._hashes)]
        if not len(new):
            return
        hashes = np.concatenate([self._hashes, hashes[new]])
        clipped = pc.utf8_slice_codeunits(pc.cast(values.take(pa.array(new)), pa.string()), 0, _CLIPPED)
        order = np.argsort(hashes, kind="stable")
        self._full |= len(order) > self._most
        order = order[: self._most]
        self._hashes, self._values = hashes[order], pa.concat_arrays([self._values, clipped]).take(pa.array(order))

    @property
    def exact(self) -> bool:
        """Whether `count` is exact."""
        return not self._full

    @property
    def count(self) -> int:
        """How many different values there are, or an estimate of it."""
        if not self._full:
            return len(self._hashes)
        return round((self._most - 1) / ((float(self._hashes[-1]) + 1) / 2.0**64))

    def sample(self) -> list[str]:
        """Return the kept values, cut at 120 characters, in an order that has nothing to do with them."""
        return [str(value) for value in self._values.to_pylist()]


class Frequent:
    """Counts of a column's commonest values, so far.

    Args:
        counters: How many are kept.
    """

    def __init__(self, counters: int = _COUNTERS) -> None:
        self._counters = counters
        self._hashes = np.empty(0, dtype=np.uint64)
        self._counts = np.empty(0, dtype=np.int64)

    def add(self, hashes: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
        """Take in how often values came that differ among themselves; shape (values,) each."""
        hashes, counts = self._thinned(hashes, counts)
        hashes, places = np.unique(np.concatenate([self._hashes, hashes]), return_inverse=True)
        totals = np.zeros(len(hashes), dtype=np.int64)
        np.add.at(totals, places, np.concatenate([self._counts, counts]))
        self._hashes, self._counts = self._thinned(hashes, totals)

    def _thinned(
        self, hashes: NDArray[np.uint64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Take away what the first value beyond the counters has, from all; so many of them are left at most."""
        if len(counts) > self._counters:
            counts = counts - np.partition(counts, -self._counters - 1)[-self._counters - 1]
        return hashes[counts > 0], counts[counts > 0]

    @property
    def most(self) -> int:
        """How often the commonest value came, at least."""
        return int(self._counts.max(initial=0))
