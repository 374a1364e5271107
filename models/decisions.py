"""From scores to a decision: whom to contact for a budget, what that brings, and where it pays best.

All of it is read from held-out counts by label and score bin, which may be noisy, and each figure says how sure it is,
by sampling of customers and by noise together (`influence`). A bin that straddles a threshold contributes its share.

Leaks:
    Nothing more than the histogram, which was charged: all of it is post-processing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.depths import Depths, shares_above
from coterie.models.influence import NORMAL, Estimate, estimated
from coterie.models.metrics import Counts

__all__ = ["Contact", "Profit", "best_contact", "contact", "profit_curve"]

_SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Contact:
    """What it brings to contact the best scores up to a budget.

    Args:
        share: Of the customers, that the budget allows to contact; in (0, 1].
        threshold: Least score to be contacted, in the model's own log-odds.
        conversions: Share of all conversions that are among the contacted.
        lift: That share over the share contacted: how many times better than at random.
        rate: Share of the contacted that convert.
    """

    share: float
    threshold: Estimate
    conversions: Estimate
    lift: Estimate
    rate: Estimate


@dataclass(frozen=True)
class Profit:
    """What it brings to contact every score from a threshold on.

    Args:
        threshold: Least score to be contacted, in the model's own log-odds; minus infinity is everybody, infinity
            nobody. Its interval, of the most profitable one alone, ends at the nearest borders that are clearly worse.
        share: Of the customers that are contacted.
        profit: Per customer, contacted or not, in the unit of value and cost.
    """

    threshold: Estimate
    share: Estimate
    profit: Estimate


def contact(counts: Counts, share: float, *, noise: float) -> Contact | None:
    """Return the threshold that contacts a share of the customers, and what that brings.

    Args:
        counts: As they were released (`influence.as_released`), or exact ones.
        share: Of the customers to contact, in (0, 1].
        noise: Standard deviation of each count's noise, in customers; 0 for exact counts.

    Returns:
        The budget's row; None where conversions or customers are lost in the noise.

    Raises:
        ValueError: The share is outside (0, 1], or the noise below 0 or not finite.
    """
    if not 0 < share <= 1:
        raise ValueError("the share to contact must be in (0, 1]")
    depths = Depths.of(counts, noise)
    if depths is None:
        return None
    whole, wanted = depths.customers, share * depths.customers
    # `depth` falls as the threshold rises.
    threshold = float(np.interp(-wanted, -depths.depth, depths.borders))
    density, rate = depths.around(threshold)
    above = shares_above(depths.borders, threshold)
    # One more customer moves the threshold by this over the density, and `rate` of those who come in convert.
    moved = share - above
    everyone = counts.negatives + counts.positives
    found = float(above @ counts.positives + rate * (wanted - above @ everyone))
    found_negative, found_positive = rate * moved, above + rate * moved
    positives = float(counts.positives.sum())
    part, told = found / positives, found / wanted
    part_error = depths.error(found_negative / positives, (found_positive - part) / positives)
    told_error = depths.error((found_negative / share - told) / whole, (found_positive / share - told) / whole)
    return Contact(
        share,
        estimated(threshold, depths.error(moved, moved) / density),
        estimated(part, part_error, within=_SHARE),
        estimated(part / share, part_error / share, within=(0.0, 1 / share)),
        estimated(told, told_error, within=_SHARE),
    )


def profit_curve(counts: Counts, value: float, *, cost: float, noise: float) -> tuple[Profit, ...]:
    """Return what it brings to contact every score from each bin's border on, from everybody to nobody.

    Args:
        counts: As they were released (`influence.as_released`), or exact ones.
        value: Of a conversion, above 0.
        cost: Of a contact, in the same unit, above 0.
        noise: Standard deviation of each count's noise, in customers; 0 for exact counts.

    Returns:
        One point per border, in ascending order of the threshold; none where the counts are lost in the noise.

    Raises:
        ValueError: The value or the cost is not above 0 and finite, or the noise below 0 or not finite.
    """
    _checked(value, cost)
    depths = Depths.of(counts, noise)
    return () if depths is None else tuple(_point(depths, value, cost, at) for at in range(len(depths.borders)))


def best_contact(counts: Counts, value: float, *, cost: float, noise: float) -> Profit | None:
    """Return the most profitable of the bins' borders as threshold, and between which borders the best lies.

    The greatest of several noisy figures is a little too high: the profit is to be read with its interval.

    Args:
        counts: As they were released (`influence.as_released`), or exact ones.
        value: Of a conversion, above 0.
        cost: Of a contact, in the same unit, above 0.
        noise: Standard deviation of each count's noise, in customers; 0 for exact counts.

    Returns:
        The best; None where the counts are lost in the noise.

    Raises:
        ValueError: The value or the cost is not above 0 and finite, or the noise below 0 or not finite.
    """
    _checked(value, cost)
    depths = Depths.of(counts, noise)
    if depths is None:
        return None
    curve = [_point(depths, value, cost, at) for at in range(len(depths.borders))]
    # Of equals, the one that contacts fewer.
    best = max(range(len(curve)), key=lambda at: (curve[at].profit.value, at))
    near = [at for at in range(len(curve)) if at == best or _close(depths, value, cost, (curve, best, at))]
    # Between borders the counts say nothing, so that the best lies before the next ones that are clearly worse.
    low, high = max(min(near) - 1, 0), min(max(near) + 1, len(curve) - 1)
    threshold = Estimate(_place(depths, best), _place(depths, low), _place(depths, high), 0.0)
    return Profit(threshold, curve[best].share, curve[best].profit)


def _checked(value: float, cost: float) -> None:
    if not (0 < value < np.inf and 0 < cost < np.inf):
        raise ValueError("the value of a conversion and the cost of a contact must be in (0, infinity)")


def _place(depths: Depths, at: int) -> float:
    """Return a border as a threshold: the outer bins are open."""
    return {0: -np.inf, len(depths.borders) - 1: np.inf}.get(at, float(depths.borders[at]))


def _point(depths: Depths, value: float, cost: float, at: int) -> Profit:
    threshold = _place(depths, at)
    earned, (negative, positive) = _earned(depths, value, cost, at)
    above = (np.arange(len(depths.borders) - 1) >= at).astype(np.float64)
    whole = depths.customers
    share = float(above @ (depths.counts.negatives + depths.counts.positives)) / whole
    moved = (above - share) / whole
    return Profit(
        estimated(threshold, 0.0),
        estimated(share, depths.error(moved, moved), within=_SHARE),
        estimated(earned, depths.error(negative, positive), within=(-cost, value)),
    )


def _earned(
    depths: Depths, value: float, cost: float, at: int
) -> tuple[float, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the profit per customer from a border on, and the influences on it."""
    above = (np.arange(len(depths.borders) - 1) >= at).astype(np.float64)
    whole, counts = depths.customers, depths.counts
    earned = float(above @ ((value - cost) * counts.positives - cost * counts.negatives)) / whole
    return earned, ((-cost * above - earned) / whole, ((value - cost) * above - earned) / whole)


def _close(depths: Depths, value: float, cost: float, pair: tuple[list[Profit], int, int]) -> bool:
    """Return whether a border's profit is not clearly below the best one's, paired so that what they share cancels."""
    curve, best, at = pair
    _, (negative, positive) = _earned(depths, value, cost, best)
    _, (less, also) = _earned(depths, value, cost, at)
    error = depths.error(negative - less, positive - also)
    return curve[best].profit.value - curve[at].profit.value <= NORMAL * error
