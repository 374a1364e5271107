"""Scores of trained families, found where the customer's history is, from released weights and that history alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories
from coterie.models.recommenders.settings import Recommender
from coterie.models.recommenders.towers import ATTRIBUTE_SCALE, names

__all__ = ["log_popularity", "scores"]

_FLOOR = 0.01
_CELLS = 2**22


def log_popularity(popularity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logarithm of each item's share, shape (items,).

    Args:
        popularity: Noisy, shape (items,). What is below a hundredth of the mean counts as that, so that noise below
            zero has a logarithm.
    """
    positive = np.maximum(np.nan_to_num(popularity.astype(np.float64)), 0.0)
    mean = positive.mean() if positive.any() else 1.0
    held = np.maximum(positive, _FLOOR * mean)
    return np.asarray(np.log(held / held.sum()), dtype=np.float32)


def scores(
    settings: Recommender,
    weights: Sequence[NDArray[np.float32]],
    *,
    histories: Histories,
    attributes: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return how much each item suits each customer, the customer's own items among them.

    Args:
        settings: A trained family's.
        weights: Popularity, then the module's parameters in order.
        histories: Of the customers that are scored; score few at a time where items are many.
        attributes: Public attributes of items, (items, attributes).

    Returns:
        (customers, items).

    Raises:
        ValueError: The family is not one that is trained, or weights are not as many as it has.
    """
    popularity, *parameters = weights
    by_name = {name: value.astype(np.float64) for name, value in zip(names(settings), parameters, strict=True)}
    if settings.family == "two-tower":
        found = _two_tower(by_name, histories, attributes)
    elif settings.family == "neumf":
        found = _neumf(by_name, histories, settings.dimension)
    else:
        found = _pooled(by_name["item.weight"], histories) @ by_name["item.weight"].T
    return np.asarray(found + log_popularity(popularity), dtype=np.float32)


def _pooled(table: NDArray[np.float64], histories: Histories) -> NDArray[np.float64]:
    """Return the sum of each customer's rows over the length of its history, (customers, numbers)."""
    summed = np.zeros((len(histories), table.shape[1]))
    some = histories.lengths > 0
    if some.any():
        # Those without items take no room among the items: the others follow one another.
        summed[some] = np.add.reduceat(table[histories.items], histories.starts[:-1][some], axis=0)
    pooled: NDArray[np.float64] = summed / np.sqrt(np.maximum(histories.lengths, 1))[:, None]
    return pooled


def _two_tower(
    by_name: dict[str, NDArray[np.float64]], histories: Histories, attributes: NDArray[np.float32]
) -> NDArray[np.float64]:
    customers = _pooled(by_name["history.weight"], histories) @ by_name["customer.weight"].T + by_name["customer.bias"]
    items = by_name["item.weight"]
    if "attributes.weight" in by_name:
        items = items + (ATTRIBUTE_SCALE * attributes) @ by_name["attributes.weight"][:, :, 0].T
    product: NDArray[np.float64] = customers @ items.T
    return product


def _neumf(by_name: dict[str, NDArray[np.float64]], histories: Histories, width: int) -> NDArray[np.float64]:
    items, out = by_name["item.weight"], by_name["out.weight"][0, :, 0]
    customers = _pooled(items, histories)
    found: NDArray[np.float64] = customers[:, :width] @ items[:, :width].T
    views = customers[:, width:] @ by_name["customer.weight"].T + by_name["customer.bias"]
    few = max(1, _CELLS // items[:, width:].size)
    for start in range(0, len(views), few):
        hidden = np.maximum(views[start : start + few, None] + items[None, :, width:], 0.0)
        found[start : start + few] += hidden @ out
    return found
