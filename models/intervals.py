"""How sure a mean over customers is: normal intervals, and paired bootstrap intervals of differences.

The customers are taken as a sample of those that a model will serve. The seed is public and only makes a report
repeatable: nothing here protects anybody.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "difference", "interval"]

_NORMAL = 1.959963984540054  # 97.5 % of a standard normal lie below


@dataclass(frozen=True)
class Interval:
    """A mean and a 95 % interval around it.

    Args:
        mean: Of the customers' values; not a number where there are none.
        low: Lower end.
        high: Upper end.
        customers: How many values there were.
    """

    mean: float
    low: float
    high: float
    customers: int


def interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean with the normal approximation's interval: 1.96 standard errors to each side.

    Args:
        values: One per customer, shape (customers,).
    """
    count = len(values)
    if count == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / count**0.5 if count > 1 else np.inf
    return Interval(mean, mean - _NORMAL * error, mean + _NORMAL * error, count)


def difference(one: NDArray[np.float64], other: NDArray[np.float64], *, seed: int = 1, samples: int = 2000) -> Interval:
    """Return how much better one model is than another on the same customers, with a bootstrap interval.

    Paired: a sample draws customers, each with both of its values, so that what makes a customer easy for both cancels.
    The interval holds the middle 95 % of the samples' means (Efron and Tibshirani 1993, section 13.3).

    Args:
        one: A value per customer, shape (customers,).
        other: The other model's, for the same customers in the same order.
        seed: Public.
        samples: How many.

    Raises:
        ValueError: There are not as many values of one as of the other.
    """
    if len(one) != len(other):
        raise ValueError("a paired comparison wants both values of every customer")
    count = len(one)
    if count == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    gaps = one - other
    draw = np.random.default_rng(seed)
    means = np.array([gaps[draw.integers(0, count, count)].mean() for _ in range(samples)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(gaps.mean()), float(low), float(high), count)
