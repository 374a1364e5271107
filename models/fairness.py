"""Fairness by group, from the noisy histograms of held-out scores that are counted by group, label and score bin.

By group: how well the model ranks (AUC), whether it promises too much (observed less predicted rate), how many of a
group are selected at a threshold, and how many of those that convert (equal opportunity: Hardt, Price and Srebro 2016,
definition 2.2). Each figure has an interval by sampling and noise together; a group whose counts do not stand clear of
the noise is told of without figures.

Leaks:
    Nothing more than the histogram, which was charged: all of it is post-processing.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from coterie.models.depths import borders, shares_above
from coterie.models.influence import Estimate, as_released, checked_noise, enough, estimated, spread
from coterie.models.metrics import Counts

__all__ = ["Gap", "Group", "Review", "by_group", "review", "whole"]

Pair = NDArray[np.float64]

_SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Group:
    """What can be said of one group; None stands for "too few to say".

    Args:
        name: Of the group.
        customers: Noisy count of its held-out customers, at least 0.
        auc: How often one that converts outscores one that does not.
        calibration: Observed less predicted share that converts.
        selected: Share of the group with a score above the threshold.
        reached: Share of those that convert with a score above the threshold (true-positive rate).
    """

    name: str
    customers: float
    auc: Estimate | None = None
    calibration: Estimate | None = None
    selected: Estimate | None = None
    reached: Estimate | None = None


@dataclass(frozen=True)
class Gap:
    """The widest gap between two groups in one figure.

    Args:
        figure: "auc", "calibration", "selected" or "reached".
        most: Name of the group with the greatest figure.
        least: And with the least.
        gap: By how much, at least 0; its interval allows for the choice among all pairs (Bonferroni).
    """

    figure: str
    most: str
    least: str
    gap: Estimate


@dataclass(frozen=True)
class Review:
    """A fairness review.

    Args:
        threshold: Log-odds from which on a customer is selected.
        groups: In the histogram's order.
        gaps: For each figure that at least two groups have.
    """

    threshold: float
    groups: tuple[Group, ...]
    gaps: tuple[Gap, ...]


def by_group(histogram: NDArray[np.generic], groups: int) -> NDArray[np.generic]:
    """Return a histogram that was counted by group in the shape (groups, 2, bins).

    Args:
        histogram: Rows group 0 label 0, group 0 label 1, group 1 label 0 ..., shape (2 * groups, bins).
        groups: How many, at least 1.

    Raises:
        ValueError: The histogram is not of that shape.
    """
    if groups < 1 or histogram.ndim != 2 or histogram.shape[0] != 2 * groups:
        raise ValueError("a histogram by group has shape (2 * groups, bins) with at least 1 group")
    return histogram.reshape(groups, 2, histogram.shape[1])


def whole(histogram: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return everybody's histogram, shape (2, bins), from one by group or one that is everybody's already.

    The noise of a count grows by the square root of the groups.

    Args:
        histogram: Of shape (2 * groups, bins).

    Raises:
        ValueError: It has no rows, or an odd number of them.
    """
    return np.asarray(by_group(histogram, len(histogram) // 2).sum(axis=0))


def review(histogram: NDArray[np.generic], names: Sequence[str], *, threshold: float, noise: float) -> Review:
    """Review a model's fairness between groups.

    Args:
        histogram: Held-out customers by group, label and score bin, possibly noisy, shape (2 * groups, bins).
        names: Of the groups.
        threshold: Log-odds from which on a customer is selected; a bin that it cuts contributes its share.
        noise: Standard deviation of each count's noise, in customers; 0 for exact counts.

    Raises:
        ValueError: The histogram does not fit the names, a count or the threshold is not finite, or the noise is below
            0 or not finite.
    """
    checked_noise(noise)
    if not np.isfinite(threshold):
        raise ValueError("the threshold must be finite")
    counts = [as_released(one) for one in by_group(histogram, len(names))]
    groups = tuple(_group(name, one, threshold, noise=noise) for name, one in zip(names, counts, strict=True))
    figures: dict[str, Callable[[Group], Estimate | None]] = {
        "auc": lambda one: one.auc,
        "calibration": lambda one: one.calibration,
        "selected": lambda one: one.selected,
        "reached": lambda one: one.reached,
    }
    gaps = (_gap(name, [(one.name, figure(one)) for one in groups]) for name, figure in figures.items())
    return Review(threshold, groups, tuple(gap for gap in gaps if gap is not None))


def _group(name: str, counts: Counts, threshold: float, *, noise: float) -> Group:
    everyone = counts.negatives + counts.positives
    size = max(float(everyone.sum()), 0.0)
    if not enough(everyone, noise * 2**0.5):
        return Group(name, size)
    above = shares_above(borders(counts.predicted), threshold)
    converts = enough(counts.positives, noise)
    both = converts and enough(counts.negatives, noise)
    return Group(
        name,
        size,
        _auc(counts, noise) if both else None,
        _mean(-counts.predicted, 1 - counts.predicted, counts=counts, noise=noise, within=(-1.0, 1.0)),
        _mean(above, above, counts=counts, noise=noise, within=_SHARE),
        _reached(above, counts, noise) if converts else None,
    )


def _mean(negative: Pair, positive: Pair, *, counts: Counts, noise: float, within: tuple[float, float]) -> Estimate:
    """Return the mean of what customers are worth, by label and bin."""
    total = float(counts.positives.sum() + counts.negatives.sum())
    mean = float(positive @ counts.positives + negative @ counts.negatives) / total
    error = spread((negative - mean) / total, (positive - mean) / total, counts=counts, noise=noise)
    return estimated(mean, error, within=within)


def _reached(above: Pair, counts: Counts, noise: float) -> Estimate:
    """Return the share of those that convert that is above the threshold."""
    converts = float(counts.positives.sum())
    share = float(above @ counts.positives) / converts
    error = spread(np.zeros_like(above), (above - share) / converts, counts=counts, noise=noise)
    return estimated(share, error, within=_SHARE)


def _auc(counts: Counts, noise: float) -> Estimate:
    """Return the AUC; its influences are the placement values (Hanley and Hajian-Tilaki 1997)."""
    negatives, positives = float(counts.negatives.sum()), float(counts.positives.sum())
    beaten = (np.cumsum(counts.negatives) - counts.negatives / 2) / negatives
    beating = (np.cumsum(counts.positives[::-1])[::-1] - counts.positives / 2) / positives
    auc = float(beaten @ counts.positives) / positives
    error = spread((beating - auc) / negatives, (beaten - auc) / positives, counts=counts, noise=noise)
    return estimated(auc, error, within=_SHARE)


def _gap(figure: str, found: Sequence[tuple[str, Estimate | None]]) -> Gap | None:
    known = [(name, one) for name, one in found if one is not None]
    pairs = len(list(itertools.combinations(known, 2)))
    if not pairs:
        return None
    most, least = (choose(known, key=lambda one: one[1].value) for choose in (max, min))
    error = float(np.hypot(most[1].error, least[1].error))
    normal = NormalDist().inv_cdf(1 - 0.025 / pairs)
    gap = estimated(most[1].value - least[1].value, error, within=(0.0, np.inf), normal=normal)
    return Gap(figure, most[0], least[0], gap)
