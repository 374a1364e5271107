"""Counts by score bin as curves from the best score down: how deep a threshold reaches, and what lies around it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.influence import checked_noise, enough, spread
from coterie.models.metrics import Counts

__all__ = ["Depths", "borders", "shares_above"]


@dataclass(frozen=True)
class Depths:
    """Counts as curves from the best score down.

    Args:
        counts: As they were released.
        noise: Of each count.
        borders: Of the bins in log-odds, ascending, shape (bins + 1,).
        depth: Customers with a score from each border on, made to rise without noise's dents, shape (bins + 1,).
    """

    counts: Counts
    noise: float
    borders: NDArray[np.float64]
    depth: NDArray[np.float64]

    @property
    def customers(self) -> float:
        """How many there are."""
        return float(self.counts.negatives.sum() + self.counts.positives.sum())

    @classmethod
    def of(cls, counts: Counts, noise: float) -> "Depths | None":
        """Return the curves of counts; None where conversions or customers are lost in the noise.

        Args:
            counts: As they were released (`influence.as_released`), or exact ones.
            noise: Standard deviation of each count's noise, in customers; 0 for exact counts.

        Raises:
            ValueError: The noise is below 0 or not finite.
        """
        checked_noise(noise)
        everyone = counts.negatives + counts.positives
        if not (enough(counts.positives, noise) and enough(everyone, noise * 2**0.5)):
            return None
        reached = np.concatenate((np.cumsum(everyone[::-1])[::-1], [0.0]))
        risen = np.clip(_rising(reached[::-1])[::-1], 0.0, everyone.sum())
        risen[0], risen[-1] = everyone.sum(), 0.0
        return cls(counts, noise, borders(counts.predicted), risen)

    def error(self, negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
        """Return the standard error of a figure from its influences."""
        return spread(negative, positive, counts=self.counts, noise=self.noise)

    def around(self, threshold: float) -> tuple[float, float]:
        """Return customers per log-odds and the share that converts, around a threshold: over three bins, for noise."""
        here = int(np.clip(np.searchsorted(self.borders, threshold) - 1, 0, len(self.borders) - 2))
        low, high = max(here - 1, 0), min(here + 2, len(self.borders) - 1)
        if self.noise == 0:
            low, high = here, here + 1
        width = self.borders[high] - self.borders[low]
        density = max((self.depth[low] - self.depth[high]) / width, 1.0 / width)
        positives = float(self.counts.positives[low:high].sum())
        total = positives + float(self.counts.negatives[low:high].sum())
        if not enough(np.array([total]), self.noise * (2 * (high - low)) ** 0.5):
            return float(density), float(self.counts.predicted[here])
        return float(density), min(max(positives / total, 0.0), 1.0)


def borders(predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where score bins meet, in log-odds: half-way between their middles, and as far beyond the outer ones.

    Args:
        predicted: Probability at the middle of each bin, ascending, shape (bins,).

    Returns:
        Ascending, shape (bins + 1,).

    Raises:
        ValueError: There are fewer than two bins, or they do not ascend within (0, 1).
    """
    if len(predicted) < 2 or not (predicted[0] > 0 and predicted[-1] < 1 and (np.diff(predicted) > 0).all()):
        raise ValueError("score bins must be at least 2 and ascend within (0, 1)")
    odds = np.log(predicted) - np.log1p(-predicted)
    return np.concatenate(([1.5 * odds[0] - odds[1] / 2], (odds[1:] + odds[:-1]) / 2, [1.5 * odds[-1] - odds[-2] / 2]))


def shares_above(edges: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return which share of each bin lies above a threshold.

    Args:
        edges: From `borders`, shape (bins + 1,).
        threshold: In log-odds.

    Returns:
        In [0, 1], shape (bins,).
    """
    return np.asarray(np.clip((edges[1:] - threshold) / np.diff(edges), 0.0, 1.0), dtype=np.float64)


def _rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest values that never fall (least squares; pool adjacent violators, Barlow et al. 1972)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    return np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])
