"""Whole-number sums over customers on private bins: counts of cells, and clipped gradients of the additive family.

A row is in one cell of each of d columns, and in one slot of each of a columns and pairs. All of a row's part of a sum
has one size: 1 / sqrt(d) in each of its cells, or its residual in the intercept and in each of its slots. So the part's
norm is known without computing it, clipping the residual is clipping the gradient, and both are done in whole numbers.
A customer of m rows adds the m-th part of each; the norm of a sum is at most the sum of the norms.

In the plan's numbers a customer's part has an L2 norm of at most D, `sensitivity`:

    counts       m rows x floor(isqrt(D^2 div d) / m) x sqrt(d)                   <= D
    gradients    m rows x floor(isqrt(D^2 div (a + 1)) / m) x sqrt(a + 1)         <= D
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.numbers import clamped
from coterie.privacy.training.rowwise import PIECE

__all__ = ["Judged", "ResidualSettings", "cell_total", "residual_total"]

Places = NDArray[np.int64]

_EXACT = 2**53  # whole numbers up to it are exact in float64, and so are their sums


@dataclass(frozen=True, kw_only=True)
class ResidualSettings:
    """How residuals are summed; all public.

    Args:
        clip: Greatest L2 norm of a customer's gradient.
        sensitivity: D, what the clip is in whole numbers.
        bound: Greatest size of a coordinate of the sum.
        sample_rate: Poisson rate at which customers are in the sum.
        positive_weight: What rows with label 1 weigh, before clipping.
    """

    clip: float
    sensitivity: int
    bound: int
    sample_rate: float
    positive_weight: float


@dataclass(frozen=True)
class Judged:
    """Rows as a model sees them.

    Args:
        margins: Log-odds by the model, shape (rows,); a row's own depend on that row alone.
        labels: 0 or 1, shape (rows,).
        customer: Whole numbers, equal for rows of one customer, shape (rows,).
    """

    margins: NDArray[np.float64]
    labels: NDArray[np.float32]
    customer: Places

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Judged(...)"


def cell_total(cells: Places, customer: Places, *, width: int, sensitivity: int, bound: int) -> NDArray[np.int64]:
    """Count the cells that customers are in.

    Args:
        cells: Shape (rows, columns), each in a range of its own of 0 .. width - 1.
        customer: Whole numbers, equal for rows of one customer, shape (rows,).
        width: Cells of all columns.
        sensitivity: D.
        bound: Greatest size of a coordinate of the sum.

    Returns:
        Units, shape (width,): divide by `sensitivity` / sqrt(columns) for customers.

    Raises:
        ValueError: So many rows do not add up exactly.

    Guarantees:
        Adding or removing a customer changes the sum by a vector of whole numbers of L2 norm at most `sensitivity`, and
        no other customer's part of it.

    Leaks:
        Everything, as it stands: it is for masking with noise that is paid for, and for nothing else.
    """
    each = math.isqrt(sensitivity**2 // max(1, cells.shape[1])) // _rows(customer)
    return clamped(_added(cells, each, width), bound)


def residual_total(
    slots: Places, judged: Judged, *, width: int, settings: ResidualSettings, stream: Stream
) -> NDArray[np.int64]:
    """Sum the clipped gradients of the logistic loss over a Poisson sample of customers.

    Args:
        slots: Shape (rows, active), each column in a range of its own of 0 .. width - 1.
        judged: The rows' labels, and what the model says of them.
        width: Slots of all columns and pairs.
        settings: Public.
        stream: Secret randomness of the sample.

    Returns:
        Units, shape (width + 1,), that of the intercept last: divide by `sensitivity` / `clip` for a gradient.

    Raises:
        ValueError: So many rows do not add up exactly.

    Guarantees:
        Adding or removing a customer changes the sum by a vector of whole numbers of L2 norm at most
        `settings.sensitivity`, and no other customer's part of it, bit for bit.

    Leaks:
        Everything, as it stands: it is for masking with noise that is paid for, and for nothing else.
    """
    rows, active = _rows(judged.customer), slots.shape[1]
    most = math.isqrt(settings.sensitivity**2 // (active + 1)) // rows
    residuals = _residuals(judged.margins, judged.labels.astype(np.float64), settings.positive_weight)
    # Towards zero: rounding makes no part longer. What the clip cuts off is cut in whole numbers.
    whole = np.clip(np.trunc(residuals * (settings.sensitivity / settings.clip) / rows), -most, most).astype(np.int64)
    whole *= _sampled(judged.customer, settings.sample_rate, stream)
    total = np.append(_added(slots, whole, width), whole.sum(dtype=np.int64))
    return clamped(total, settings.bound)


def _rows(customer: Places) -> Places:
    """Return how many rows each row's customer has, shape (rows,)."""
    _, index, counts = np.unique(customer, return_inverse=True, return_counts=True)
    return np.asarray(counts[index], dtype=np.int64)


def _sampled(customer: Places, rate: float, stream: Stream) -> NDArray[np.bool_]:
    """Return which rows are in the sample: their customers by independent coins, as the accountant assumes."""
    known, index = np.unique(customer, return_inverse=True)
    return np.asarray((stream.uniforms(len(known)) < rate)[index], dtype=np.bool_)


def _residuals(
    margins: NDArray[np.float64], labels: NDArray[np.float64], positive_weight: float
) -> NDArray[np.float64]:
    """Return the derivative of the loss by the margin, shape (rows,), each row's by the same operations.

    Rows go through in whole vectors: none falls into the rest of a loop over them, which other code computes.
    """
    padded = np.zeros(-(-max(1, len(margins)) // PIECE) * PIECE)
    padded[: len(margins)] = margins
    chance = 1.0 / (1.0 + np.exp(-np.clip(padded, -500.0, 500.0)))
    found = chance[: len(margins)] - labels
    return np.where(labels > 0, positive_weight * found, found)


def _added(places: Places, values: Places, width: int) -> NDArray[np.int64]:
    """Add every row's value at each of its places, exactly."""
    if len(places) and len(places) * int(np.abs(values).max()) >= _EXACT:
        raise ValueError("so many rows in so fine units do not add up exactly")
    total = np.zeros(width, dtype=np.int64)
    weights = values.astype(np.float64)  # whole numbers below 2^53, as all their sums are: exact in any order
    for column in range(places.shape[1]):
        total += np.bincount(places[:, column], weights=weights, minlength=width).astype(np.int64)
    return total
