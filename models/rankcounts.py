"""Ranking metrics from counts of places in bins: what partners sum, noise and pay for, and what can be read from it.

A customer adds 1 to the bin of its held-out item's place among all candidates. The bins are public. Everything after
the noise is post-processing.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models import ranking
from coterie.models.ranking import Ranks

__all__ = ["Estimate", "metrics_from_rank_counts", "rank_bins", "rank_counts"]

_CUTS = (10, 20, 5, 1, 50, 100)  # by importance


@dataclass(frozen=True)
class Estimate:
    """A metric that was read from noisy counts.

    Args:
        value: With places spread evenly within each bin.
        low: With every place at the worst of its bin.
        high: With every place at the best of its bin.
        error: Standard error of each of them by the noise alone; sampling of customers comes on top.
    """

    value: float
    low: float
    high: float
    error: float


def rank_bins(items: int, bins: int) -> NDArray[np.int64]:
    """Return public edges of bins of places 1 .. items: fine at the top, exact where lists are cut.

    Bins end after places 10, 20, 5, 1, 50 and 100, as many of these as there are bins for, so that a share of
    customers up to there is exact; the others are cut where that makes the greatest ratio of edges smallest.

    Args:
        items: Items of the catalogue, at least 2.
        bins: How many, at least 2; fewer come back where there are not as many places.

    Returns:
        Ascending, shape (bins + 1,): bin b holds places edges[b] .. edges[b + 1] - 1, of which 1 is the best.

    Raises:
        ValueError: There are fewer than 2 items or bins.
    """
    if items < 2 or bins < 2:
        raise ValueError("places want at least 2 items and 2 bins")
    count = min(bins, items)
    cuts = [cut + 1 for cut in _CUTS if cut < items][: count - 1]
    edges = sorted({1, *cuts, items + 1})
    while len(edges) < count + 1:
        _, low, high = max((high / low, low, high) for low, high in itertools.pairwise(edges) if high > low + 1)
        edges = sorted([*edges, min(max(round((low * high) ** 0.5), low + 1), high - 1)])
    return np.array(edges, dtype=np.int64)


def rank_counts(places: Ranks, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count held-out items by the bin of their place; ties stand in their middle, rounded to the worse.

    Args:
        places: At most one per customer.
        edges: From `rank_bins`.

    Returns:
        Shape (bins,); one customer's part is one 1, of L2 norm 1.

    Leaks:
        Exact counts: for masking with noise that is paid for, and for nothing else.
    """
    place = 1 + places.above + (places.tied + 1) // 2
    inside = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(inside, minlength=len(edges) - 1).astype(np.int64)


def metrics_from_rank_counts(
    counts: NDArray[np.int64], edges: NDArray[np.int64], *, longest: int, noise: float = 0.0
) -> dict[str, Estimate] | None:
    """Read HR@10, HR@20, NDCG@10, MRR and HR@10 of 1 + 99 from counts, which may be noisy and below 0.

    A metric is the mean of what a place is worth. The ratio of sums is taken as it is, without first putting counts
    below 0 right, which would move customers into empty bins; what comes out is held within 0 and 1. The error is the
    delta method's: noise times the length of (worth - metric) over the number of customers.

    Args:
        counts: Shape (bins,).
        edges: From `rank_bins`.
        longest: Greatest number of items of one customer: an unknown history leaves at least items - 1 - longest
            candidates, which brackets the sampled metric.
        noise: Standard deviation of each count's noise.

    Returns:
        By name; None where the number of customers is lost in the noise, that is, below 2 of its standard deviations.
    """
    customers = float(counts.sum())
    if customers <= 0 or customers < 2 * noise * len(counts) ** 0.5:
        return None
    found = {}
    for name, measure in _measures().items():
        values = []
        error = 0.0
        for worth in _worths(edges, measure, longest):
            metric = float(worth @ counts) / customers
            error = max(error, noise * float(np.linalg.norm(worth - metric)) / customers)
            values.append(min(max(metric, 0.0), 1.0))
        found[name] = Estimate(values[1], min(values), max(values), error)
    return found


def _measures() -> dict[str, Callable[[Ranks], NDArray[np.float64]]]:
    """Return what a place is worth in each metric."""
    return {
        "hr@10": lambda places: ranking.hits(places, 10),
        "hr@20": lambda places: ranking.hits(places, 20),
        "ndcg@10": lambda places: ranking.gains(places, 10),
        "mrr": ranking.reciprocals,
        "hr@10 of 99": lambda places: ranking.sampled_hits(places, 10),
    }


def _worths(
    edges: NDArray[np.int64], measure: Callable[[Ranks], NDArray[np.float64]], longest: int
) -> list[NDArray[np.float64]]:
    """Return what each bin is worth at its worst place, spread evenly, and at its best place."""
    first, last, most = edges[:-1] - 1, edges[1:] - 2, int(edges[-1]) - 2
    fewest = max(most - longest, 1)

    def worth(above: NDArray[np.int64], tied: NDArray[np.int64], others: int) -> NDArray[np.float64]:
        # Of fewer candidates, no more can be above.
        here = np.minimum(above, others)
        return measure(Ranks(here, np.minimum(tied, others - here), np.full(len(here), others)))

    alone = np.zeros(len(first), dtype=np.int64)
    # An even spread over a bin is a tie of all its places.
    return [worth(last, alone, fewest), worth(first, last - first, (fewest + most) // 2), worth(first, alone, most)]
