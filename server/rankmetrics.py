"""What charged counts of places say of a recommender, and of popularity beside it.

Partners count each held-out customer once, by the place of its last item under one of two rankings: that of popularity,
the floor, in row 0, and the model's in row 1. All that is computed from the noisy counts costs nothing more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import recommender_of
from coterie.models.rankcounts import Estimate, metrics_from_rank_counts, rank_bins
from coterie.privacy.plan import Plan
from coterie.server.noises import answered, histogram_noise
from coterie.server.registry import Progress

__all__ = ["FLOOR", "MODEL", "RankRelease", "rank_metrics", "rank_releases"]

FLOOR, MODEL = 0, 1
"""Rows of the counts."""


@dataclass(frozen=True)
class RankRelease:
    """One round's charged counts, over all partners that answered.

    Args:
        round: After which.
        partners: How many answered.
        edges: Of the bins, `rank_bins`.
        counts: Noisy, of the floor and of the model, int64, (2, bins).
        noise: Standard deviation of the noise in each count.
        longest: Greatest number of items of one customer.
    """

    round: int
    partners: int
    edges: NDArray[np.int64]
    counts: NDArray[np.int64]
    noise: float
    longest: int

    def estimates(self, row: int) -> Mapping[str, Estimate]:
        """Return the metrics of `FLOOR` or `MODEL`; nothing where its customers are lost in the noise."""
        found = metrics_from_rank_counts(self.counts[row], self.edges, longest=self.longest, noise=self.noise)
        return found or {}

    def hits(self, row: int) -> list[tuple[int, float]]:
        """Return the noisy share of customers found in the first k places, (k, share), for each bin's last place."""
        if not self.estimates(row):
            return []
        shares = np.cumsum(self.counts[row]) / self.counts[row].sum()
        return [(int(end) - 1, float(share)) for end, share in zip(self.edges[1:], shares, strict=True)]


def rank_releases(plan: Plan, progress: Progress) -> list[RankRelease]:
    """Return the charged counts of every round that has some, in order."""
    settings = recommender_of(plan)
    edges = rank_bins(settings.items, plan.metrics.bins)
    found = []
    for number, by_partner in sorted(progress.histograms.items()):
        if not by_partner:
            continue
        counts = np.sum([by_partner[name] for name in sorted(by_partner)], axis=0)[:, : len(edges) - 1]
        partners, noise = answered(plan, progress, number), histogram_noise(plan, progress, number)
        found.append(RankRelease(number, partners, edges, counts, noise, settings.longest))
    return found


def rank_metrics(plan: Plan, progress: Progress) -> dict[str, float]:
    """Return what the last charged counts say: each metric of the model, and with "_floor" of popularity."""
    last = rank_releases(plan, progress)[-1:]
    return {
        name + end: estimate.value
        for release in last
        for row, end in ((MODEL, ""), (FLOOR, "_floor"))
        for name, estimate in release.estimates(row).items()
    }
