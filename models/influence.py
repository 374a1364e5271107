"""How sure a figure is that was read from a noisy histogram: the delta method, for sampling and noise at once.

Every figure here is a smooth function of the counts. What one more customer in a cell would change of it is the cell's
influence (Hampel 1974, section 2). Each count has the variance of its customers, as a Poisson count, plus that of its
noise, and the counts are independent, so the figure's variance is the sum of influence squared times that variance.

Counts are taken as they were released, below 0 too: sums of them are right on average, and putting single counts right
first would move customers into empty bins. All of it is post-processing and costs no budget.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.metrics import Counts, binned_counts

__all__ = ["NORMAL", "Estimate", "as_released", "checked_noise", "enough", "estimated", "spread"]

NORMAL = 1.959963984540054
"""97.5 % of a standard normal lie below."""

_FEWEST = 10.0  # customers: with fewer the normal approximation says little
_CLEAR = 4.0  # standard deviations of its noise that a sum must have before anything is divided by it


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, by sampling of customers and by noise.

    Args:
        value: The figure.
        low: Lower end, within what the figure can be.
        high: Upper end, likewise.
        error: Standard error.
    """

    value: float
    low: float
    high: float
    error: float


def as_released(histogram: NDArray[np.generic]) -> Counts:
    """Read a histogram of scores as counts, left as they are.

    Args:
        histogram: By label and score bin, possibly noisy, shape (2, bins).

    Raises:
        ValueError: It is not of shape (2, bins), or a count is not finite.
    """
    if histogram.ndim != 2 or histogram.shape[0] != 2 or histogram.shape[1] < 2:
        raise ValueError("a histogram of scores has shape (2, bins) with at least 2 bins")
    counts = histogram.astype(np.float64)
    if not np.isfinite(counts).all():
        raise ValueError("counts must be finite")
    return Counts(counts[0], counts[1], binned_counts(counts).predicted)


def checked_noise(noise: float) -> float:
    """Return a standard deviation of noise, in customers.

    Args:
        noise: Of each count; 0 for exact counts.

    Raises:
        ValueError: It is below 0 or not finite.
    """
    if not 0 <= noise < np.inf:
        raise ValueError("noise must be in [0, infinity)")
    return float(noise)


def enough(counts: NDArray[np.float64], noise: float) -> bool:
    """Return whether a sum of noisy counts is large enough to divide by.

    Args:
        counts: Summed, any shape.
        noise: Standard deviation of each count's noise, in customers.
    """
    return bool(counts.sum() >= max(_FEWEST, _CLEAR * noise * counts.size**0.5))


def spread(negative: NDArray[np.float64], positive: NDArray[np.float64], *, counts: Counts, noise: float) -> float:
    """Return the standard error of a figure from its influences.

    Args:
        negative: What one more customer of label 0 in a bin changes, shape (bins,).
        positive: Likewise of label 1.
        counts: The figure was read from these.
        noise: Standard deviation of each count's noise, in customers.
    """
    sampled = float((negative**2 * counts.negatives).sum() + (positive**2 * counts.positives).sum())
    noised = noise**2 * float((negative**2).sum() + (positive**2).sum())
    return float(np.sqrt(max(sampled, 0.0) + noised))


def estimated(
    value: float, error: float, *, within: tuple[float, float] = (-np.inf, np.inf), normal: float = NORMAL
) -> Estimate:
    """Return a figure with its normal interval, cut to what the figure can be.

    Args:
        value: The figure.
        error: Its standard error.
        within: Least and greatest that the figure can be.
        normal: How many standard errors to each side.
    """
    value, low, high = (
        float(min(max(end, within[0]), within[1])) for end in (value, value - normal * error, value + normal * error)
    )
    return Estimate(value, low, high, float(error))
