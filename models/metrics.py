"""How good a propensity model is, from exact scores or from (noisy) histograms of scores.

Everything is computed from one form: counts by label and score bin, worst score first. Exact scores are the
special case of one bin per distinct score, so there is one implementation of each metric, and it can be held
against an independent one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Counts",
    "bin_edges",
    "binned_counts",
    "calibration",
    "exact_counts",
    "lift_curve",
    "log_loss",
    "summary",
]


@dataclass(frozen=True)
class Counts:
    """Customers by score bin, in ascending order of score.

    Args:
        negatives: Customers with label 0, shape (bins,); may be fractional.
        positives: Customers with label 1, shape (bins,).
        predicted: Representative predicted probability of each bin, shape (bins,).
    """

    negatives: NDArray[np.float64]
    positives: NDArray[np.float64]
    predicted: NDArray[np.float64]


def bin_edges(bins: int) -> NDArray[np.float64]:
    """Return the inner edges of score histograms: equal in log-odds from -6 to 6, shape (bins - 1,)."""
    return np.linspace(-6.0, 6.0, bins + 1)[1:-1]


def binned_counts(histogram: NDArray[np.float64]) -> Counts:
    """Read a histogram of shape (2, bins), or (2 * groups, bins) with two rows for each group, as counts of everybody.

    Noise leaves counts below 0. They are put right by "norm-sub" (Wang et al. 2020, "Locally Differentially
    Private Frequency Estimation with Consistency", arXiv 1905.08320, section 4): the closest counts that are not
    negative and keep each label's total, which noise does not bias. That is post-processing and costs no budget.
    """
    bins = histogram.shape[1]
    middles = np.linspace(-6.0, 6.0, 2 * bins + 1)[1::2]
    everybody = histogram.reshape(-1, 2, bins).sum(axis=0)
    negatives, positives = (_norm_sub(row.astype(np.float64)) for row in everybody)
    return Counts(negatives, positives, 1 / (1 + np.exp(-middles)))


def _norm_sub(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean projection onto counts >= 0 with the same sum; zeros when the sum is not positive."""
    whole = counts.sum()
    if whole <= 0:
        return np.zeros_like(counts)
    falling = np.sort(counts)[::-1]
    shifts = (np.cumsum(falling) - whole) / np.arange(1, len(counts) + 1)
    shift = shifts[np.flatnonzero(falling > shifts)[-1]]
    return np.asarray(np.maximum(counts - shift, 0.0), dtype=np.float64)


def exact_counts(
    logits: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> Counts:
    """Count exact scores; equal scores share a bin.

    Args:
        logits: Log-odds, shape (rows,).
        labels: 0 or 1, shape (rows,).
        weights: What each row counts for, shape (rows,); 1 when None.
    """
    each = np.ones(len(logits)) if weights is None else weights
    values, index = np.unique(logits, return_inverse=True)
    positives = np.bincount(index, weights=labels * each, minlength=len(values))
    negatives = np.bincount(index, weights=(1 - labels) * each, minlength=len(values))
    return Counts(np.asarray(negatives, float), np.asarray(positives, float), 1 / (1 + np.exp(-values)))


def summary(counts: Counts) -> dict[str, float | None]:
    """Return auc, average_precision, top_decile_lift and calibration_error; None where undefined."""
    if counts.positives.sum() <= 0 or counts.negatives.sum() <= 0:
        return dict.fromkeys(("auc", "average_precision", "top_decile_lift", "calibration_error"))
    return {
        "auc": _auc(counts),
        "average_precision": _average_precision(counts),
        "top_decile_lift": lift_curve(counts)[0][1],
        "calibration_error": _calibration_error(counts),
    }


def log_loss(
    logits: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the mean negative log-likelihood of exact scores."""
    return float(np.average(np.logaddexp(0.0, logits) - labels * logits, weights=weights))


def lift_curve(counts: Counts) -> list[tuple[float, float]]:
    """Return (depth, lift) at depths 0.1 .. 1: the positive rate among the best scores over the overall rate.

    A bin that straddles a depth contributes its share.
    """
    everyone = (counts.negatives + counts.positives)[::-1]
    found = counts.positives[::-1]
    reached = np.concatenate(([0.0], np.cumsum(everyone)))
    caught = np.concatenate(([0.0], np.cumsum(found)))
    total, positives = reached[-1], caught[-1]
    if total <= 0 or positives <= 0:
        return []
    depths = np.arange(1, 11) / 10
    share = np.interp(depths * total, reached, caught) / positives
    return [(float(d), float(s / d)) for d, s in zip(depths, share, strict=True)]


def calibration(counts: Counts, groups: int = 10) -> list[tuple[float, float, float]]:
    """Return (mean predicted, observed rate, share of customers) in `groups` groups of near-equal size."""
    everyone = counts.negatives + counts.positives
    total = everyone.sum()
    if total <= 0:
        return []
    # A bin belongs to the group in which its middle customer lies.
    group = np.minimum(((np.cumsum(everyone) - everyone / 2) / total * groups).astype(int), groups - 1)
    points = []
    for index in range(groups):
        here = (group == index) & (everyone > 0)
        weight = everyone[here].sum()
        if weight > 0:
            predicted = float((counts.predicted[here] * everyone[here]).sum() / weight)
            points.append((predicted, float(counts.positives[here].sum() / weight), float(weight / total)))
    return points


def _auc(counts: Counts) -> float:
    """Area under the ROC curve: P(score of a positive > of a negative), ties half (Mann and Whitney)."""
    below = np.cumsum(counts.negatives) - counts.negatives
    wins = (counts.positives * (below + counts.negatives / 2)).sum()
    return float(wins / (counts.positives.sum() * counts.negatives.sum()))


def _average_precision(counts: Counts) -> float:
    """Sum of precision times gain in recall, best score first, over distinct scores."""
    positives = counts.positives[::-1]
    found = np.cumsum(positives)
    taken = np.cumsum((counts.positives + counts.negatives)[::-1])
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    return float((precision * positives).sum() / positives.sum())


def _calibration_error(counts: Counts) -> float:
    """Expected calibration error over ten groups of near-equal size."""
    return sum(weight * abs(predicted - observed) for predicted, observed, weight in calibration(counts))
