"""Whom a recommender serves well, and what it shows: quality by customer group, exposure by item group.

For an ethics board. Exact, so for simulations and for a partner's own eyes; what leaves a partner is charged counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.intervals import Interval, interval

__all__ = ["Shares", "coverage", "exposure", "exposure_by_group", "gini", "novelty", "quality_by_group"]


@dataclass(frozen=True)
class Shares:
    """What one group of items has of everything; each share is in [0, 1] and a group of all items has 1.

    Args:
        catalogue: Of the items.
        popularity: Of what customers have.
        exposure: Of the places in the lists.
    """

    catalogue: float
    popularity: float
    exposure: float


def exposure(lists: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    """Return how many lists each item is in, shape (items,).

    Args:
        lists: Recommended items, (customers, places); -1 where a list is shorter.
        items: Items of the catalogue.
    """
    return np.bincount(lists[lists >= 0], minlength=items).astype(np.int64)


def coverage(shown: NDArray[np.int64]) -> float:
    """Return the share of the catalogue that is in anybody's list: coverage@k; of `exposure`."""
    return float(np.count_nonzero(shown) / len(shown))


def gini(shown: NDArray[np.int64]) -> float:
    """Return the Gini coefficient of exposure over items: 0 for all alike, 1 - 1 / items for one item alone."""
    ordered, count = np.sort(shown).astype(np.float64), len(shown)
    if ordered.sum() == 0:
        return 0.0
    return float(((2 * np.arange(1, count + 1) - count - 1) * ordered).sum() / (count * ordered.sum()))


def novelty(lists: NDArray[np.int64], shares: NDArray[np.float64], *, least: float) -> float:
    """Return the mean of -log2(share of customers that have the item) over all places: novelty@k, in bits.

    Args:
        lists: As for `exposure`.
        shares: Share of customers that have each item, shape (items,), (0, 1]; may be noisy.
        least: What a smaller share is taken for, such as one customer's; above 0.

    Returns:
        Not a number where nothing is recommended.
    """
    some = lists[lists >= 0]
    return float(-np.log2(np.clip(shares, least, 1.0))[some].mean()) if len(some) else float("nan")


def quality_by_group(values: NDArray[np.float64], groups: Sequence[str]) -> dict[str, Interval]:
    """Return a metric for every group of customers, with its interval.

    Args:
        values: Of each customer, such as `ranking.sampled_hits`, shape (customers,).
        groups: Each customer's group.

    Returns:
        By group, in the order of their names.
    """
    label = _labels(groups, len(values))
    return {str(name): interval(values[label == name]) for name in np.unique(label)}


def exposure_by_group(
    shown: NDArray[np.int64], popularity: NDArray[np.float64], groups: Sequence[str]
) -> dict[str, Shares]:
    """Compare what each group of items gets in lists with what it is of the catalogue and of what customers have.

    A group with more exposure than popularity is pushed; one with less is held back.

    Args:
        shown: From `exposure`.
        popularity: How often customers have each item, shape (items,); noisy values below 0 count as 0.
        groups: Each item's group, such as its brand, price band or genre.

    Returns:
        By group, in the order of their names.
    """
    label = _labels(groups, len(shown))
    amounts = (np.ones(len(shown)), np.maximum(popularity, 0.0), shown.astype(np.float64))
    parts = [of / of.sum() if of.sum() > 0 else np.zeros(len(shown)) for of in amounts]
    return {str(name): Shares(*(float(part[label == name].sum()) for part in parts)) for name in np.unique(label)}


def _labels(groups: Sequence[str], count: int) -> NDArray[np.str_]:
    """Return groups as an array of the length that is wanted."""
    label = np.asarray(groups, dtype=np.str_)
    if len(label) != count:
        raise ValueError(f"{len(label)} groups for {count} values")
    return label
