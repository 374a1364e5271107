"""Regions of stores, found from who shops where.

The data name no place, yet households shop near home, so stores that share households lie close together.
Regions are grown from hubs, without chance and without a look at any label:

1. the first hub is the store that most households visit;
2. each further hub is the store that most households visit which visit no hub so far;
3. every other store joins the hub whose households its own resemble most (cosine of the two sets of
   households, ties to the earlier hub); a store that shares no household with any hub stays outside.

A household that shops in several regions belongs to each of them, as a person may be a customer of several
companies.
"""

import numpy as np
import numpy.typing as npt

from coterie.simulations.sources.tables import Ints

__all__ = ["OUTSIDE", "grow"]

OUTSIDE = -1


def grow(household: Ints, store: Ints, *, regions: int) -> Ints:
    """Assign every store to a region.

    Args:
        household: Number of the household of each purchase.
        store: Number of the store of each purchase.
        regions: How many regions to grow.

    Returns:
        The region of each store, by the store's number: 0..regions-1, or OUTSIDE.
    """
    visits = np.zeros((int(household.max()) + 1, int(store.max()) + 1), dtype=np.int64)
    visits[household, store] = 1
    hubs = _hubs(visits, regions)
    shared = visits.T @ visits[:, hubs]
    reach = visits.sum(axis=0)
    # Cosine squared up to each store's own reach, which is the same for all hubs: only the order matters.
    likeness = shared**2 / reach[hubs]
    region = np.where(shared.any(axis=1), likeness.argmax(axis=1), OUTSIDE)
    region[hubs] = np.arange(regions)
    return region


def _hubs(visits: npt.NDArray[np.int64], regions: int) -> list[int]:
    hubs: list[int] = []
    unreached = np.ones(len(visits), dtype=bool)
    for _ in range(regions):
        gained = visits[unreached].sum(axis=0)
        gained[hubs] = -1
        hubs.append(int(gained.argmax()))
        unreached &= visits[:, hubs[-1]] == 0
    return hubs
