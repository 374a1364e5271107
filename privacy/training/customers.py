"""Customers as samples: all rows of one customer are one example, padded and masked."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Batch", "Customers"]


@dataclass(frozen=True)
class Batch:
    """Some customers, ready for one step.

    Args:
        features: (customers, features) when each has one row, else (customers, rows, features).
        labels: (customers, rows), 0 or 1.
        mask: (customers, rows), 1 where a row exists.
    """

    features: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor


class Customers:
    """A table whose samples are customers; its `repr` shows nothing of it.

    Args:
        features: (rows, features), float32.
        labels: (rows,), 0 or 1.
        customer: (rows,), whole numbers; equal numbers are one customer.
        longest: Rows for which every customer has room: a public constant, so that nobody's shape depends on another's
            rows. The longest customer's rows where everything is public.

    Raises:
        ValueError: A customer has more rows than `longest`.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.float32],
        customer: NDArray[np.int64],
        *,
        longest: int | None = None,
    ) -> None:
        order = np.argsort(customer, kind="stable")
        _, starts, counts = np.unique(customer[order], return_index=True, return_counts=True)
        self._features = torch.from_numpy(features)
        self._labels = torch.from_numpy(labels)
        most = int(counts.max()) if len(counts) else 1
        self.longest = most if longest is None else longest
        if most > self.longest:
            raise ValueError("a customer has more rows than there is room for")
        slots = np.arange(self.longest)[None, :]  # (1, rows)
        self._mask = torch.from_numpy((slots < counts[:, None]).astype(np.float32))  # (customers, rows)
        # A padded slot repeats the customer's first row; the mask takes it out of the loss.
        self._rows = torch.from_numpy(order[starts[:, None] + np.where(slots < counts[:, None], slots, 0)])

    def __len__(self) -> int:
        """Return the number of customers, which is private."""
        return len(self._rows)

    def __repr__(self) -> str:
        """Return a text without any size."""
        return "Customers(...)"

    @property
    def cells(self) -> int:
        """How many numbers a batch holds of each customer's features, padding included."""
        return self.longest * self._features.shape[1]

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Return the customers at these positions, shape (chosen,), in float64."""
        picked = torch.from_numpy(chosen)
        rows = self._rows[picked]  # (B, L)
        features = self._features[rows]  # (B, L, d)
        if rows.shape[1] == 1:
            features = features[:, 0]  # (B, d): the same gradients, found faster
        return Batch(features.double(), self._labels[rows].double(), self._mask[picked].double())
