"""Private calibration: what a model's scores are worth as probabilities, fitted on a noisy histogram of them.

Platt scaling (Platt 1999; Lin, Lin and Weng 2007, equations 1 and 2): log-odds' = slope * log-odds + intercept, by
Newton's method with backtracking (the latter's algorithm 1) on the counts of held-out customers by label and score bin,
as they were released. The equations that the fit solves are sums of counts, so that noise does not bias them.

A bin's customers are taken at its middle. The outer bins are open; customers beyond them count as just inside.

Leaks:
    Nothing more than the histogram, which was charged: all of it is post-processing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.influence import checked_noise, enough
from coterie.models.metrics import Counts

__all__ = ["CONSTANT", "INTERCEPT", "NONE", "PLATT", "Calibration", "calibrated", "fit"]

PLATT, CONSTANT, INTERCEPT, NONE = "platt", "constant", "intercept", "none"

_SURE = 0.25  # greatest standard error at which the slope is believed rather than left at 1
_STEPS, _HALVINGS = 60, 30
_DONE = 1e-9  # how near 0 a Newton step is at the end

Pair = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A correction of log-odds, and how sure it is.

    Args:
        kind: "platt"; "constant" where higher scores do not go with more conversions, so that the slope is held at 0;
            "intercept" where the noise leaves too little to fit a slope, which then stays at 1; "none" where it leaves
            too little for anything.
        slope: At least 0.
        intercept: In log-odds.
        slope_error: Standard error by sampling and noise together; 0 where the slope was not fitted.
        intercept_error: Likewise.
        covariance: Of slope and intercept.
    """

    kind: str
    slope: float
    intercept: float
    slope_error: float
    intercept_error: float
    covariance: float


def fit(counts: Counts, *, noise: float) -> Calibration:
    """Fit a calibration on held-out counts by label and score bin.

    Args:
        counts: As they were released, possibly below 0 (`influence.as_released`).
        noise: Standard deviation of each count's noise, in customers; 0 for exact counts.

    Returns:
        The correction; its kind says how much of it could be fitted.

    Raises:
        ValueError: The noise is below 0 or not finite.
    """
    checked_noise(noise)
    if not (enough(counts.positives, noise) and enough(counts.negatives, noise)):
        return Calibration(NONE, 1.0, 0.0, 0.0, 0.0, 0.0)
    across = np.log(counts.predicted) - np.log1p(-counts.predicted)
    sloped, still = np.stack([across, np.ones_like(across)]), np.zeros_like(across)
    shifted = _shifted(across, counts, noise, kind=INTERCEPT)
    if shifted.kind == NONE or not _signal(sloped, across + shifted.intercept, counts, noise):
        return shifted
    found = _solved(sloped, still, counts, noise)
    if found is None:
        return shifted
    at, covariance = found
    if at[0] <= 0:
        return _shifted(still, counts, noise, kind=CONSTANT)
    errors = np.sqrt(np.diag(covariance))
    return Calibration(PLATT, float(at[0]), float(at[1]), float(errors[0]), float(errors[1]), float(covariance[0, 1]))


def calibrated(logits: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return calibrated log-odds, of the same shape.

    Args:
        logits: Log-odds of the model, any shape.
        calibration: From `fit`.
    """
    return np.asarray(calibration.slope * logits + calibration.intercept, dtype=np.float64)


def _shifted(start: Pair, counts: Counts, noise: float, *, kind: str) -> Calibration:
    """Fit the intercept alone, on top of log-odds that stay."""
    slope = 0.0 if kind == CONSTANT else 1.0
    found = _solved(np.ones((1, len(start))), start, counts, noise)
    if found is None:
        return Calibration(NONE, 1.0, 0.0, 0.0, 0.0, 0.0)
    at, covariance = found
    return Calibration(kind, slope, float(at[0]), 0.0, float(np.sqrt(covariance[0, 0])), 0.0)


def _signal(sloped: Pair, odds: Pair, counts: Counts, noise: float) -> bool:
    """Return whether a slope could be told well enough, judged at a slope of 1.

    Judging the fitted slope itself would let through those that noise has flattened, whose errors look small.
    """
    p = _chance(odds)
    covariance = _sandwich(sloped, p, counts, noise)
    return covariance is not None and float(np.sqrt(covariance[0, 0])) <= _SURE


def _solved(design: Pair, start: Pair, counts: Counts, noise: float) -> tuple[Pair, Pair] | None:
    """Return the least surprise's coefficients and their covariance; None where there is no least.

    Args:
        design: What each coefficient is multiplied by, shape (coefficients, bins).
        start: Log-odds to which the products are added, shape (bins,).
        counts: As they were released.
        noise: Of each count.
    """
    negatives, positives = _softened(counts)
    at = np.zeros(len(design))

    def surprise(there: Pair) -> float:
        odds = start + there @ design
        return float(negatives @ np.logaddexp(0.0, odds) + positives @ np.logaddexp(0.0, -odds))

    for _ in range(_STEPS):
        p = _chance(start + at @ design)
        slope = design @ (p * negatives - (1 - p) * positives)
        inverse = _inverse(design, p, counts)
        if inverse is None:
            return None
        step = -inverse @ slope
        if np.abs(step).max() < _DONE:
            covariance = _sandwich(design, p, counts, noise)
            return None if covariance is None else (at, covariance)
        here, length = surprise(at), 1.0
        for _ in range(_HALVINGS):
            if surprise(at + length * step) <= here + 1e-4 * length * float(slope @ step) + 1e-12 * abs(here):
                break
            length /= 2
        at = at + length * step
    return None


def _softened(counts: Counts) -> tuple[Pair, Pair]:
    """Return counts under Platt's targets, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), which keep the slope finite."""
    few = 1 / (counts.negatives.sum() + 2)
    many = (counts.positives.sum() + 1) / (counts.positives.sum() + 2)
    positives = many * counts.positives + few * counts.negatives
    return counts.negatives + counts.positives - positives, positives


def _chance(odds: Pair) -> Pair:
    """Return the probabilities of log-odds, however far out."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -odds)), dtype=np.float64)


def _inverse(design: Pair, p: Pair, counts: Counts) -> Pair | None:
    """Return the inverse of the curvature; None where noise has taken the bottom out of the valley."""
    curvature = (design * ((counts.negatives + counts.positives) * p * (1 - p))) @ design.T
    if np.linalg.eigvalsh(curvature)[0] <= 1e-12 * max(1.0, float(np.abs(curvature).max())):
        return None
    return np.asarray(np.linalg.inv(curvature), dtype=np.float64)


def _sandwich(design: Pair, p: Pair, counts: Counts, noise: float) -> Pair | None:
    """Return the covariance of the solution of noisy equations (Huber 1967): that of their sums, between curvatures."""
    inverse = _inverse(design, p, counts)
    if inverse is None:
        return None
    # A customer of label 1 adds -(1 - p) times its design to the sums, one of label 0 adds p times it; so does noise.
    # Noise's part is known cell by cell; that of sampling is read from the counts, and right in the sum alone.
    sampled = inverse @ (design * ((1 - p) ** 2 * counts.positives + p**2 * counts.negatives)) @ design.T @ inverse
    if np.linalg.eigvalsh(sampled)[0] < 0:
        sampled = inverse  # what it is where the model holds
    noised = noise**2 * inverse @ (design * ((1 - p) ** 2 + p**2)) @ design.T @ inverse
    return np.asarray(sampled + noised, dtype=np.float64)
