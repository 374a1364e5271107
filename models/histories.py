"""Customers' histories: which items, in which order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histories"]


@dataclass(frozen=True)
class Histories:
    """The items of some customers, one after the other; its `repr` shows nothing of them.

    Args:
        starts: Where each customer's items begin and the last one's end, shape (customers + 1,), int64.
        items: Positions in the catalogue, shape (interactions,), int64; of one customer each is there once, oldest
            first.
        days: Day of each, in days since 1970-01-01, shape (interactions,), int64.
    """

    starts: NDArray[np.int64]
    items: NDArray[np.int64]
    days: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.starts) - 1

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Histories(...)"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many items each customer has, shape (customers,)."""
        return np.diff(self.starts)

    def of(self, chosen: NDArray[np.int64]) -> "Histories":
        """Return the histories of the customers at these positions, in this order."""
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.starts[chosen] - starts[:-1], lengths) + np.arange(starts[-1])
        return Histories(starts, self.items[rows], self.days[rows])

    def without_last(self) -> tuple["Histories", NDArray[np.int64]]:
        """Return the histories without each customer's last item, and those items, shape (customers,); -1 for none."""
        some = self.lengths > 0
        last = np.where(some, self.starts[1:] - 1, 0)
        items = np.where(some, self.items[last] if len(self.items) else -1, -1)
        keep = np.ones(len(self.items), dtype=np.bool_)
        keep[last[some]] = False
        starts = np.concatenate([[0], np.cumsum(self.lengths - some)])
        return Histories(starts, self.items[keep], self.days[keep]), items
