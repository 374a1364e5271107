"""Recency: how much each item of a history still says about the customer."""

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories

__all__ = ["faded"]


def faded(histories: Histories, half_life: float) -> NDArray[np.float32]:
    """Return weights that halve with every so many newer items.

    Items are what counts, not days: one customer buys daily and another monthly.

    Args:
        histories: Of any customers, oldest item first.
        half_life: In items, at least 0; 0 for no fading.

    Returns:
        Shape (interactions,), in (0, 1]; 1 for everybody's newest item.

    Raises:
        ValueError: The half-life is negative or not a number.

    Leaks:
        Made at home from a customer's own history, and used there.
    """
    if not half_life >= 0:
        raise ValueError("a half-life is at least 0")
    if half_life == 0:
        return np.ones(len(histories.items), dtype=np.float32)
    newer = np.repeat(histories.starts[1:], histories.lengths) - 1 - np.arange(len(histories.items))
    return np.exp2(-np.minimum(newer / half_life, 100.0)).astype(np.float32)
