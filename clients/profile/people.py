"""Who has how many rows, and how far some columns together tell customers from each other.

What grows with a table is here alone: 12 bytes for each customer, a hash and a count, and 17 for each customer's every
combination of quasi-identifiers. Names of customers are not kept.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coterie.clients.profile.facts import Anonymity, CustomerFacts
from coterie.clients.profile.hashing import joined

__all__ = ["FEW", "Census", "Groups"]

FEW = 5
"""A group of fewer customers is small: what statistical offices commonly ask of a cell of a table."""

_LEAST = 1 << 18  # waiting numbers, before they are counted
_STEPS = (("1", 1), ("2", 2), ("3 to 5", 5), ("6 to 10", 10), ("11 to 100", 100), ("more", None))


class Census:
    """How often each number came so far."""

    def __init__(self) -> None:
        self._seen = np.empty(0, dtype=np.uint64)
        self._times = np.empty(0, dtype=np.int32)
        self._waiting: list[NDArray[np.uint64]] = []
        self._rows = 0

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Take in some numbers, shape (rows,)."""
        self._waiting.append(hashes)
        self._rows += len(hashes)
        if self._rows > max(_LEAST, len(self._seen)):
            self._count()

    def _count(self) -> None:
        words = np.concatenate([self._seen, *self._waiting])
        times = np.ones(len(words), dtype=np.int32)
        times[: len(self._times)] = self._times
        self._waiting, self._rows = [], 0
        self._seen, places = np.unique(words, return_inverse=True)
        self._times = np.zeros(len(self._seen), dtype=np.int32)
        np.add.at(self._times, places, times)

    @property
    def seen(self) -> NDArray[np.uint64]:
        """The different numbers, ascending."""
        self._count()
        return self._seen

    @property
    def times(self) -> NDArray[np.int32]:
        """How often each of them came."""
        self._count()
        return self._times

    def several(self) -> NDArray[np.uint64]:
        """Return the numbers that came more than once, ascending."""
        return self.seen[self.times > 1]

    def facts(self, most_allowed: int | None, doubled: int) -> CustomerFacts:
        """Return what the numbers say where each one is a customer's.

        Args:
            most_allowed: Rows that a customer may have; None where there is no limit.
            doubled: Rows that are equal to an earlier one.
        """
        times = self.times
        return CustomerFacts(
            customers=len(times),
            several=int((times > 1).sum()),
            crowded=0 if most_allowed is None else int((times > most_allowed).sum()),
            most=int(times.max(initial=0)),
            doubled=doubled,
            by_rows=_by_rows(times),
        )


def _by_rows(times: NDArray[np.int32]) -> Mapping[str, int]:
    found, before = {}, 0
    for words, most in _STEPS:
        within = times > before if most is None else (times > before) & (times <= most)
        found[words] = int(within.sum())
        before = most or 0
    return found


class Groups:
    """Which customers share the values of some columns.

    Args:
        columns: The columns' names.
        chosen: "given" or "suggested".
    """

    def __init__(self, columns: tuple[str, ...], chosen: str) -> None:
        self.columns, self._chosen = columns, chosen
        self._labelled = True
        self._who = np.empty(0, dtype=np.uint64)
        self._group = np.empty(0, dtype=np.uint64)
        self._ones = np.empty(0, dtype=np.bool_)
        self._waiting: list[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.bool_]]] = []
        self._rows = 0

    def add(self, who: NDArray[np.uint64], values: NDArray[np.uint64], ones: NDArray[np.bool_] | None) -> None:
        """Take in some rows, shape (rows,) each.

        Args:
            who: Hashes of customers.
            values: Hashes of the columns' values, joined.
            ones: Whether the label is 1; None without a label.
        """
        self._labelled &= ones is not None
        self._waiting.append((who, values, np.zeros(len(who), dtype=np.bool_) if ones is None else ones))
        self._rows += len(who)
        if self._rows > max(_LEAST, len(self._who)):
            self._count()

    def _count(self) -> None:
        who = np.concatenate([self._who, *(one for one, _, _ in self._waiting)])
        group = np.concatenate([self._group, *(one for _, one, _ in self._waiting)])
        ones = np.concatenate([self._ones, *(one for _, _, one in self._waiting)])
        self._waiting, self._rows = [], 0
        # A customer counts once in a group, and as one to whom it happened if it did in any of its rows.
        _, first, places = np.unique(joined([who, group]), return_index=True, return_inverse=True)
        self._who, self._group = who[first], group[first]
        self._ones = np.zeros(len(first), dtype=np.bool_)
        self._ones[places[ones]] = True

    def facts(self) -> Anonymity | None:
        """Return what was found; None without a customer."""
        self._count()
        groups, places, sizes = np.unique(self._group, return_inverse=True, return_counts=True)
        if not len(groups):
            return None
        size = sizes[places]  # of the group that each pair of customer and group is in
        happened = np.bincount(places, weights=self._ones, minlength=len(groups))[places]
        alike = (size > 1) & ((happened == 0) | (happened == size))
        return Anonymity(
            columns=self.columns,
            chosen=self._chosen,
            groups=len(groups),
            smallest=int(sizes.min()),
            alone=self._customers(size == 1),
            few=self._customers(size < FEW),
            one_label=self._customers(alike) if self._labelled else None,
        )

    def _customers(self, chosen: NDArray[np.bool_]) -> int:
        return len(np.unique(self._who[chosen]))
