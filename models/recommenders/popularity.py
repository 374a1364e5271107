"""Popularity: the noisy mean of customers' items at unit length, which items it keeps, and what it recommends.

Scores are on the scale of logarithms everywhere: of a share, or of how much likelier an item is than by popularity.
What families find and what a customer's own content says then add up.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories
from coterie.models.recommenders.settings import Recommender

__all__ = ["kept_items", "places", "popularity_scores", "shares", "smoothed"]

_LEAST_SHARE = 0.01
"""What a kept item's popularity is at least taken for when rows are scaled, as a share of the greatest."""

_LEAST = 1e-4
"""What any item's popularity is at least taken for in a logarithm, as a share of the greatest."""


def smoothed(mean: NDArray[np.float64], *, noise: float) -> NDArray[np.float32]:
    """Return a noisy mean made positive, in the same order: p becomes (p + sqrt(p^2 + 4 noise^2)) / 2.

    An item far above the noise keeps its popularity, one about zero gets the size of the noise, and one far below gets
    less and less.

    Args:
        mean: Noisy mean over customers, shape (items,).
        noise: Standard deviation of each coordinate.

    Returns:
        Shape (items,), at least 0.

    Guarantees:
        Post-processing of a paid release: it costs nothing.
    """
    # As it stands for p > 0; for p < 0 the same number without the difference of two that are nearly equal.
    root = np.sqrt(mean * mean + 4 * noise * noise)
    below = 2 * noise * noise / np.maximum(root - mean, np.finfo(np.float64).tiny)
    positive = np.where(mean > 0, (mean + root) / 2, below)
    return positive.astype(np.float32)


def kept_items(popularity: NDArray[np.float32], settings: Recommender) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which items are modelled, and by what a customer's row is scaled before it gets unit length.

    Args:
        popularity: Noisy mean over customers, shape (items,).
        settings: The recommender.

    Returns:
        Positions in the catalogue, shape (kept,), the most popular first, ties by position; and
        (popularity / greatest popularity) ** -exponent of each, a share under a hundredth taken for a hundredth.

    Guarantees:
        Post-processing of a paid release: it costs nothing.
    """
    index = np.argsort(-popularity, kind="stable")[: settings.kept]
    return index, shares(popularity[index], least=_LEAST_SHARE) ** -settings.exponent


def places(index: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    """Return each catalogue item's place among the kept ones, or -1, shape (items,)."""
    position = np.full(items, -1, dtype=np.int64)
    position[index] = np.arange(len(index))
    return position


def shares(popularity: NDArray[np.float32], *, least: float = _LEAST) -> NDArray[np.float64]:
    """Return popularity as a share of the greatest, at least `least`; all ones where none is above zero."""
    greatest = float(popularity.max(initial=0.0))
    if not greatest > 0:
        return np.ones(len(popularity))
    return np.maximum(popularity.astype(np.float64) / greatest, least)


def popularity_scores(
    settings: Recommender, weights: Sequence[NDArray[np.float32]], histories: Histories
) -> NDArray[np.float32]:
    """Score every item by the logarithm of its popularity, alike for all customers.

    Args:
        settings: The recommender.
        weights: The published model.
        histories: Whose scores; nothing but their number is used.

    Returns:
        Shape (customers, items).

    Guarantees:
        A customer's own data plays no part.
    """
    row = np.log(shares(weights[0])).astype(np.float32)
    return np.tile(row, (len(histories), 1)).reshape(len(histories), settings.items)
