"""The first value of each name in a long table, in 16 bytes a name: names and values are known by 64-bit hashes alone.

Two names are taken for one once in 2**64 / names**2 tables; the second of them is then told to have another value. Two
names that are equal are never taken for two.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ANOTHER", "FIRST", "SAME", "Firsts"]

FIRST, SAME, ANOTHER = 0, 1, 2
"""What a row's value is to its name: the first, the same again, or another one than the first."""

_Hashes = NDArray[np.int64]


class Firsts:
    """The first value of each name seen so far.

    Kept in sorted runs, each more than twice as long as the next: a row costs a search in each of a few, and the
    memory, 16 bytes a name, is three times that for a moment when the longest are merged.
    """

    def __init__(self) -> None:
        self._runs = list[tuple[_Hashes, _Hashes]]()

    def take(self, names: _Hashes, values: _Hashes) -> NDArray[np.int8]:
        """Take the next rows, in order, and say what each one's value is to its name.

        Args:
            names: A hash of each row's name, shape (rows,).
            values: A hash of its value, shape (rows,).

        Returns:
            FIRST, SAME or ANOTHER, shape (rows,).
        """
        order = np.argsort(names, kind="stable")
        sorted_names, sorted_values = names[order], values[order]
        begins = np.ones(len(names), dtype=np.bool_)
        begins[1:] = sorted_names[1:] != sorted_names[:-1]
        starts = np.flatnonzero(begins)
        unique = sorted_names[starts]
        known, first = self._looked_up(unique, sorted_values[starts])
        group = np.cumsum(begins) - 1
        verdict = np.where(sorted_values == first[group], np.int8(SAME), np.int8(ANOTHER))
        verdict[starts[~known]] = FIRST
        self._add(unique[~known], first[~known])
        found = np.empty(len(names), dtype=np.int8)
        found[order] = verdict
        return found

    def _looked_up(self, names: _Hashes, values: _Hashes) -> tuple[NDArray[np.bool_], _Hashes]:
        """Return which names are known, and the first value of each: what is known, or what is given here."""
        known = np.zeros(len(names), dtype=np.bool_)
        for run_names, run_values in self._runs:
            places = np.minimum(np.searchsorted(run_names, names), len(run_names) - 1)
            here = run_names[places] == names
            values = np.where(here, run_values[places], values)
            known |= here
        return known, values

    def _add(self, names: _Hashes, values: _Hashes) -> None:
        if not len(names):
            return
        self._runs.append((names, values))
        while len(self._runs) > 1 and 2 * len(self._runs[-1][0]) >= len(self._runs[-2][0]):
            (one, its), (other, others) = self._runs.pop(), self._runs.pop()
            together = np.concatenate([one, other])
            del one, other
            order = np.argsort(together, kind="stable")
            together = together[order]
            both = np.concatenate([its, others])
            del its, others
            self._runs.append((together, both[order]))
