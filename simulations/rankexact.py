"""Exact figures of recommenders on held-out items, as plain JSON values: in a simulation alone.

Every customer is served by the model that its own partner would have, so that a model of one partner and a model of all
are held against each other on the same customers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models import rankbias, ranking
from coterie.models.histories import Histories
from coterie.models.intervals import Interval, difference
from coterie.models.ranking import Ranks

__all__ = ["CUTS", "MAIN", "TOP", "Scorer", "Served", "curve", "figures", "gap", "joined", "serve", "span"]

MAIN = "hr@10 of 99"
"""The metric that models are compared by."""

TOP = 10
"""Length of the lists whose coverage and novelty is measured."""

CUTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)
"""Lengths of the lists at which hits are drawn."""

Scorer = Callable[[Histories], NDArray[np.float32]]

_CELLS = 2**22


@dataclass(frozen=True)
class Served:
    """What some customers get from a model; its `repr` shows nothing of them.

    Args:
        places: Where their held-out items stand.
        lists: The first `TOP` items for each, (customers, TOP); -1 where there are fewer.
    """

    places: Ranks
    lists: NDArray[np.int64]

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Served(...)"

    @property
    def values(self) -> NDArray[np.float64]:
        """Each customer's value of the main metric."""
        return ranking.sampled_hits(self.places, TOP)


def serve(scorer: Scorer, seen: Histories, held: NDArray[np.int64], *, items: int) -> Served:
    """Rank held-out items for the customers that have one, a piece of the customers at a time.

    Args:
        scorer: Scores all items for some histories.
        seen: Histories without the held-out items.
        held: Held-out items, shape (customers,); -1 for none.
        items: Items of the catalogue.
    """
    asked, places, lists = np.flatnonzero(held >= 0), [], [np.zeros((0, TOP), dtype=np.int64)]
    rows = max(1, _CELLS // items)
    for start in range(0, len(asked), rows):
        piece = asked[start : start + rows]
        histories = seen.of(piece)
        scores = scorer(histories)
        places.append(ranking.ranks(scores, histories, held[piece]))
        lists.append(_first(scores, histories))
    return Served(ranking.joined(places), np.concatenate(lists))


def joined(parts: Sequence[Served]) -> Served:
    """Return what the customers of several partners get, one partner after the other."""
    return Served(ranking.joined([part.places for part in parts]), np.concatenate([part.lists for part in parts]))


def figures(served: Served, shares: NDArray[np.float64], customers: int) -> dict[str, float | None]:
    """Return every metric by name: of places, and coverage, novelty and the Gini coefficient of lists.

    Args:
        served: What customers get.
        shares: Share of the customers that have each item, shape (items,).
        customers: How many these shares are of.
    """
    shown = rankbias.exposure(served.lists, len(shares))
    found = {
        **ranking.summary(served.places),
        "coverage": rankbias.coverage(shown),
        "novelty": rankbias.novelty(served.lists, shares, least=1 / max(customers, 1)),
        "gini": rankbias.gini(shown),
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def curve(served: Served) -> list[list[float]]:
    """Return the share of customers whose item is in the first k, [k, share] for every k of `CUTS`."""
    if not len(served.places):
        return []
    return [[k, float(ranking.hits(served.places, k).mean())] for k in CUTS]


def gap(ours: Served, other: Served) -> dict[str, float | None]:
    """Return by how much the main metric of one model exceeds another's on the same customers, with an interval."""
    return span(difference(ours.values, other.values))


def span(found: Interval | None) -> dict[str, float | None]:
    """Return an interval as plain values; unknown ones are None."""
    values: Mapping[str, float] = {"mean": found.mean, "low": found.low, "high": found.high} if found else {}
    return {name: _known(values.get(name)) for name in ("mean", "low", "high")}


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _first(scores: NDArray[np.float32], seen: Histories) -> NDArray[np.int64]:
    """Return the first items of each customer that are new to it, the best first, ties by position."""
    open_ = scores.astype(np.float64)
    open_[np.repeat(np.arange(len(seen)), seen.lengths), seen.items] = -np.inf
    short = min(TOP, open_.shape[1])
    chosen = np.sort(np.argpartition(-open_, short - 1, axis=1)[:, :short], axis=1)
    order = np.argsort(-np.take_along_axis(open_, chosen, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(chosen, order, axis=1)
    lists = np.full((len(open_), TOP), -1, dtype=np.int64)
    lists[:, :short] = np.where(np.isneginf(np.take_along_axis(open_, best, axis=1)), -1, best)
    return lists
