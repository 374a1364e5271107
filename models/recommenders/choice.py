"""`family = "auto"`: which family a study takes, by what is public before anybody's data is looked at."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["chosen_family", "falls_back"]

_LEAST_SIGNAL = 1500.0
"""Customers times epsilon under which popularity with the whole budget, and content, found more held-out items."""

_MOST_EPSILON = 16.0
"""A larger epsilon is taken for this one: few customers are few without noise too."""

_MOST_ITEMS = 200_000
"""Beyond so many items those that a Gram matrix can keep are too small a part of the catalogue."""

_LEAST_RANK = 2
"""The first vector is popularity itself: alone it tells no two customers apart."""


def chosen_family(*, customers: float, items: int, epsilon: float) -> str:
    """Return the family for a study whose plan leaves the choice.

    Args:
        customers: Order of size of all partners' customers together, as the partners declared it.
        items: Items of the catalogue.
        epsilon: The study's, at customer level; infinite for none.

    Returns:
        "popularity" where the noise leaves nothing else, "two-tower" for a catalogue of which a Gram matrix can keep
        too little, "item-gram" otherwise.

    Raises:
        ValueError: A number is not above 0.

    Guarantees:
        Public facts decide: nobody's count, and nothing that was computed from one.
    """
    if not (customers > 0 and items > 0 and epsilon > 0):
        raise ValueError("customers, items and epsilon are above 0")
    if customers * min(epsilon, _MOST_EPSILON) < _LEAST_SIGNAL:
        return "popularity"
    return "item-gram" if items <= _MOST_ITEMS else "two-tower"


def falls_back(strengths: NDArray[np.float32]) -> bool:
    """Tell whether so little of an item-Gram model stands out of the noise that popularity is recommended instead.

    Args:
        strengths: The published model's, shape (rank,).

    Guarantees:
        Post-processing of a paid release: it costs nothing.
    """
    return int(np.count_nonzero(strengths > 0)) < _LEAST_RANK
