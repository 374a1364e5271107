"""From scores to lists: what may be shown, how often, and how unlike each other the items of one list are.

Customers come in pieces, so that memory does not grow with them. Everything happens at home, on a customer's own
scores: no epsilon is spent, and nothing of it leaves. Why an item is in a list is a matter of `recommendreasons.py`.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories

__all__ = ["Lists", "Reranker", "Rules", "best", "open_items"]

_DEPTH = 3
"""A list is made from so many times its length, the best scored."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How lists are made.

    Args:
        top: Items per list.
        owned: Whether what a customer has already may be recommended.
        least: Least score of an item in a list.
        diversity: 0 orders by score alone; towards 1, an item counts less the more it is like one above it.
        most_per_item: Greatest number of lists an item may be in, or none.
        most_shown: How often a customer may have been shown an item before, or none.

    Raises:
        ValueError: A number is out of range.
    """

    top: int = 20
    owned: bool = False
    least: float = -math.inf
    diversity: float = 0.0
    most_per_item: int | None = None
    most_shown: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.top < 1 or not 0 <= self.diversity < 1 or math.isnan(self.least):
            raise ValueError("a list has at least 1 item, a diversity from 0 to below 1 and a least score")
        if min(self.most_per_item or 1, self.most_shown or 1) < 1 or 0 in (self.most_per_item, self.most_shown):
            raise ValueError("an item may be shown at least once")


@dataclass(frozen=True)
class Lists:
    """Lists of some customers, best first; the `repr` shows nothing of them.

    Args:
        items: Positions in the catalogue, (customers, top); -1 where a list is shorter.
        scores: Of these items, (customers, top); not a number where there is none.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Lists(...)"


def open_items(
    items: int,
    *,
    stock: NDArray[np.int64] | None = None,
    labels: Sequence[str] | None = None,
    red_lines: Collection[str] = (),
    prices: NDArray[np.float64] | None = None,
    band: tuple[float, float] = (-math.inf, math.inf),
) -> NDArray[np.bool_]:
    """Return which items may be recommended at all.

    Args:
        items: Items of the catalogue.
        stock: Positions of what is in stock; everything when None.
        labels: Each item's categories, "|" between several; the caller joins several columns by calling twice.
        red_lines: Categories that are never recommended.
        prices: Of each item, shape (items,).
        band: Least and greatest price; what has no known price is outside.

    Returns:
        Shape (items,).
    """
    may = np.ones(items, dtype=np.bool_)
    if stock is not None:
        may[:] = False
        may[stock] = True
    if labels is not None and red_lines:
        red = frozenset(red_lines)
        may &= np.array([red.isdisjoint(label.split("|")) for label in labels], dtype=np.bool_)
    if prices is not None:
        may &= (prices >= band[0]) & (prices <= band[1])
    return may


def best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the best scored items of each row, best first and equal scores by position; minus infinity never.

    Args:
        scores: (rows, items).
        count: How many.

    Returns:
        Shape (rows, count); -1 where a row has no more.
    """
    rows, items = scores.shape
    found = np.full((rows, count), -1, dtype=np.int64)
    if not rows or not items:
        return found
    # The count-th greatest maximum of blocks: so many items reach it at least, and few more do.
    wide = max(1, items // (8 * count))
    blocks = items // wide
    greatest = scores[:, : blocks * wide].reshape(rows, wide, blocks).max(axis=1)
    place = max(blocks - count, 0)
    least = np.partition(greatest, place, axis=1)[:, place] if blocks >= count else np.full(rows, -np.inf)
    reach = np.flatnonzero((scores >= least[:, None]) & (scores > -np.inf))
    row, item = reach // items, reach % items
    order = np.lexsort((-scores[row, item], row))  # stable, so that equal scores stay in order of position
    row, item = row[order], item[order]
    place_in_row = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    short = place_in_row < count
    found[row[short], place_in_row[short]] = item[short]
    return found


class Reranker:
    """Makes lists, piece by piece, and keeps how often each item was given.

    Args:
        rules: How.
        may: Which items may be recommended, from `open_items`, shape (items,).
        customers: How many customers come in all; needed where items are rationed.
        vectors: What makes items alike, such as encoded attributes or factors, (items, numbers); needed for diversity.

    Raises:
        ValueError: The rules need what is not given.
    """

    def __init__(
        self,
        rules: Rules,
        may: NDArray[np.bool_],
        *,
        customers: int | None = None,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        if (rules.diversity and vectors is None) or (rules.most_per_item is not None and customers is None):
            raise ValueError("diversity wants item vectors, and rationed items the number of customers")
        self._rules, self._may, self._customers = rules, may, customers
        self._vectors = None if vectors is None else _unit(vectors)
        self._given = np.zeros(len(may), dtype=np.int64)
        self._served = 0

    def lists(self, scores: NDArray[np.float32], histories: Histories, shown: NDArray[np.int64] | None = None) -> Lists:
        """Make the lists of the next customers.

        A rationed item goes first to those whom it suits best: everybody's next choice is dealt before anybody's one
        after it, an item that more want than may have it to the highest scores. Its ration is handed out in step with
        the customers that were served, so that those who come late have as much of it as those who come first.

        Args:
            scores: Higher is better, (customers, items).
            histories: What these customers have, in the same order.
            shown: Earlier exposures, one column each: a row of `scores` and an item, shape (2, exposures).

        Leaks:
            Everything: lists follow from customers' histories, and stay with the partner.
        """
        open_ = self._open(scores, histories, shown)
        depth = min(_DEPTH * self._rules.top, scores.shape[1])
        chosen = best(open_, depth if self._rules.diversity or self._rules.most_per_item else self._rules.top)
        if self._vectors is not None and self._rules.diversity:
            chosen = _diverse(chosen, open_, self._vectors, self._rules.diversity)
        self._served += len(scores)
        if self._rules.most_per_item is not None:
            chosen = self._dealt(chosen, open_)
        items = np.full((len(scores), self._rules.top), -1, dtype=np.int64)
        items[:, : chosen.shape[1]] = chosen[:, : self._rules.top]
        found = scores[np.arange(len(scores))[:, None], items]
        return Lists(items, np.where(items >= 0, found, np.float32(np.nan)))

    def _open(
        self, scores: NDArray[np.float32], histories: Histories, shown: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Return a copy of the scores with minus infinity for what may not be recommended."""
        open_ = np.full_like(scores, -np.inf)
        # What is not a number is below no bound and above none: it is never recommended.
        np.copyto(open_, scores, where=self._may & (scores >= self._rules.least))
        if not self._rules.owned:
            open_[np.repeat(np.arange(len(histories)), histories.lengths), histories.items] = -np.inf
        if shown is not None and self._rules.most_shown is not None:
            pairs, times = np.unique(shown[0] * scores.shape[1] + shown[1], return_counts=True)
            open_.reshape(-1)[pairs[times >= self._rules.most_shown]] = -np.inf
        return open_

    def _dealt(self, chosen: NDArray[np.int64], open_: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return lists in which no item is above its ration, from choices in order of wish."""
        top = self._rules.top
        ration = (self._rules.most_per_item or 0) * self._served // max(self._customers or 1, self._served)
        left = ration - self._given
        lists = np.full((len(chosen), top), -1, dtype=np.int64)
        length = np.zeros(len(chosen), dtype=np.int64)
        rows, depth = np.arange(len(chosen)), chosen.shape[1]
        while len(rows):
            for wish in chosen.T:
                _deal(wish, rows, open_, left, (lists, length))
            # Whose wishes ran out wishes on, among what is left, twice as deep.
            given = np.repeat(rows, length[rows])
            open_[given, lists[rows][lists[rows] >= 0]] = -np.inf
            rows = rows[length[rows] < top]
            depth = min(2 * depth, open_.shape[1])
            chosen = best(np.where(left > 0, open_[rows], np.float32(-np.inf)), depth)
            rows, chosen = rows[chosen[:, 0] >= 0], chosen[chosen[:, 0] >= 0]
        self._given = ration - left
        return lists


def _deal(
    wish: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    left: NDArray[np.int64],
    lists: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Give each of these rows the item it wishes while there is some left, highest scores first; updates in place."""
    items, length = lists
    able = (wish >= 0) & (length[rows] < items.shape[1])
    row, item = rows[able], wish[able]
    order = np.lexsort((-scores[row, item], item))
    row, item = row[order], item[order]
    turn = np.arange(len(item)) - np.searchsorted(item, item)
    row, item = row[turn < left[item]], item[turn < left[item]]
    items[row, length[row]] = item
    length[row] += 1
    np.subtract.at(left, item, 1)


def _diverse(
    chosen: NDArray[np.int64], scores: NDArray[np.float32], vectors: NDArray[np.float32], diversity: float
) -> NDArray[np.int64]:
    """Order choices by maximal marginal relevance (Carbonell and Goldstein 1998, section 2).

    Next is always the item with the greatest (1 - diversity) relevance - diversity (greatest cosine with one before
    it). Relevance is the score, from 0 to 1 among a customer's choices; cosines below 0 count as 0.
    """
    rows = np.arange(len(chosen))
    there = chosen >= 0
    score = np.where(there, scores[rows[:, None], chosen], np.float32(0))
    low = np.where(there, score, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    span = np.where(there, score, -np.inf).max(axis=1, initial=-np.inf, keepdims=True) - low
    relevance = np.where(there, (score - low) / np.where(span > 0, span, 1), -np.inf)
    of = np.where(there[:, :, None], vectors[chosen], np.float32(0))
    alike = of @ of.transpose(0, 2, 1)
    nearest = np.zeros(chosen.shape, dtype=np.float32)
    ordered = np.empty_like(chosen)
    for place in range(chosen.shape[1]):
        pick = np.argmax((1 - diversity) * relevance - diversity * nearest, axis=1)
        ordered[:, place] = np.where(relevance[rows, pick] > -np.inf, chosen[rows, pick], -1)
        relevance[rows, pick] = -np.inf
        nearest = np.maximum(nearest, alike[rows, pick])
    return ordered


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows at unit length; zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
