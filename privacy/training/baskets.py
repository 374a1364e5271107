"""Customers' histories as samples: some customers at a time, each with room for its items and the step's negatives.

A customer's room is the least of a few public sizes that its own items fit in, so that its shapes follow from its own
history and from public constants; those in rooms of the same size go through together.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Baskets", "Few", "Public"]

_LEAST_ROOM = 8


@dataclass(frozen=True, kw_only=True)
class Public:
    """What a step is computed from besides customers; all of it is known to everybody.

    Args:
        negatives: Items that stand for the rest, each once, (N,), int64.
        halves: In which half each item is, 0 or 1, (items,), int64.
        attributes: Of items, (items, attributes), float32.
        bias: What is added to each item's score, (items,), float32.

    Raises:
        ValueError: An item is twice among the negatives or not in the catalogue, or sizes differ.
    """

    negatives: NDArray[np.int64]
    halves: NDArray[np.int64]
    attributes: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        items = len(self.bias)
        if len(self.halves) != items or len(self.attributes) != items:
            raise ValueError("halves, attributes and bias are not of the same items")
        if len(np.unique(self.negatives)) != len(self.negatives):
            raise ValueError("a negative is there twice")
        if len(self.negatives) and not (self.negatives.min() >= 0 and self.negatives.max() < items):
            raise ValueError("a negative is not in the catalogue")


@dataclass(frozen=True, repr=False)
class Few:
    """Some customers, ready for one step: tensors over B customers, L places for their items and N negatives.

    Args:
        history: Their items, and the first item of the catalogue in a place that is not taken, (B, L).
        mask: 1 where a place is taken, else 0, float64, (B, L).
        halves: In which half an item is, float64, (B, L).
        slots: The history, then the negatives, (B, L + N).
        live: 1 where a negative is none of the customer's own items, else 0, float64, (B, N).
        attributes: Of the slots' items, float64, (B, attributes, L + N).
        bias: Of the slots' items, float64, (B, L + N).
        count: How many customers are there; the others fill up, and are dropped.
    """

    history: torch.Tensor
    mask: torch.Tensor
    halves: torch.Tensor
    slots: torch.Tensor
    live: torch.Tensor
    attributes: torch.Tensor
    bias: torch.Tensor
    count: int

    def kept(self, gradients: torch.Tensor) -> torch.Tensor:
        """Return gradients at places of a lookup, 0 at those that may have none: no two that stay are the same item.

        Args:
            gradients: (count, L or L + N, numbers).

        Raises:
            ValueError: A lookup has another width.
        """
        places = self.mask[: self.count] > 0
        if gradients.shape[1] == self.slots.shape[1]:
            places = torch.cat([places, self.live[: self.count] > 0], dim=1)
        if gradients.shape[1] != places.shape[1]:
            raise ValueError("a table is looked up neither at the history nor at the slots")
        return torch.where(places[..., None], gradients, 0.0)

    def put(self, total: torch.Tensor, rows: torch.Tensor) -> None:
        """Add whole numbers at places to their items' rows of a total, (items, numbers).

        Args:
            total: What to add to.
            rows: As in `kept`.
        """
        taken = self.mask[: self.count] > 0
        longest = taken.shape[1]
        total.index_add_(0, self.history[: self.count][taken], rows[:, :longest][taken])
        if rows.shape[1] > longest:
            total.index_add_(0, self.slots[0, longest:], rows[:, longest:].sum(dim=0))


class Baskets:
    """Customers' histories beside a step's public part; its `repr` shows nothing of them.

    Args:
        starts: Where each customer's items begin and the last one's end, (customers + 1,).
        items: Positions in the catalogue, oldest first, (interactions,).
        public: Of the step.
        longest: Items of a customer that are used; the newest, where it has more.

    Raises:
        ValueError: Starts do not go with items, an item is not in the catalogue, or a customer has one twice.
    """

    def __init__(self, starts: NDArray[np.int64], items: NDArray[np.int64], *, public: Public, longest: int) -> None:
        catalogue = len(public.bias)
        lengths = np.diff(starts)
        if starts[0] != 0 or starts[-1] != len(items) or (lengths < 0).any():
            raise ValueError("starts do not go with items")
        if len(items) and not (items.min() >= 0 and items.max() < catalogue):
            raise ValueError("an item is not in the catalogue")
        pairs = np.repeat(np.arange(len(lengths)) * catalogue, lengths) + items
        if len(np.unique(pairs)) != len(pairs):
            raise ValueError("a customer has an item twice")
        self._items, self._public, self._longest = items, public, longest
        self._lengths = np.minimum(lengths, longest)
        self._begins = starts[1:] - self._lengths
        doubling = [_LEAST_ROOM << k for k in range(longest.bit_length()) if _LEAST_ROOM << k < longest]
        self.rooms = [*doubling, longest]
        self.room = np.array(self.rooms)[np.searchsorted(self.rooms, self._lengths)]
        self._slot_of = np.full(catalogue, len(public.negatives))
        self._slot_of[public.negatives] = np.arange(len(public.negatives))

    def __len__(self) -> int:
        """Return the number of customers, which is private."""
        return len(self._lengths)

    def __repr__(self) -> str:
        """Return a text without any size."""
        return "Baskets(...)"

    def places(self, room: int) -> int:
        """Return how many items are looked up for a customer with this room."""
        return room + len(self._public.negatives)

    def few(self, chosen: NDArray[np.int64], *, room: int, size: int) -> Few:
        """Return the customers at these positions, filled up to a size with the first of them.

        Args:
            chosen: At least one, all of this room.
            room: L.
            size: B.
        """
        public, count = self._public, len(public_negatives := self._public.negatives)
        filled = np.concatenate([chosen, np.full(size - len(chosen), chosen[0])])
        places = np.arange(room)[None]
        mask = places < self._lengths[filled, None]  # (B, L)
        rows = np.where(mask, self._begins[filled, None] + places, 0)
        history = np.where(mask, self._items[rows], 0) if len(self._items) else np.zeros(mask.shape, dtype=np.int64)
        own = np.zeros((size, count + 1), dtype=np.bool_)
        own[np.nonzero(mask)[0], self._slot_of[history[mask]]] = True
        slots = np.concatenate([history, np.broadcast_to(public_negatives, (size, count))], axis=1)
        attributes = public.attributes[slots].transpose(0, 2, 1).astype(np.float64)
        return Few(
            history=torch.from_numpy(history),
            mask=torch.from_numpy(mask.astype(np.float64)),
            halves=torch.from_numpy(public.halves[history].astype(np.float64)),
            slots=torch.from_numpy(slots),
            live=torch.from_numpy((~own[:, :count]).astype(np.float64)),
            attributes=torch.from_numpy(np.ascontiguousarray(attributes)),
            bias=torch.from_numpy(public.bias[slots].astype(np.float64)),
            count=len(chosen),
        )
