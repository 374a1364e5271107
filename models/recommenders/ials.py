"""Implicit alternating least squares from summed statistics: customers solve for themselves, the server for the items.

A customer's own vector u answers the published factors h of the kept items; it is solved at home, in every sweep and
for every recommendation. Items' factors answer sums over customers, each of which has a weight s that brings what it
adds to unit length (`Sweep`):

    customer    (sum over own items of h h' + unobserved G + ridge (n + unobserved kept) I) u = sum over own items of h
                G = sum over all kept items of h h'
    item        (A + unobserved W + ridge I) h = b
                A = mean of s u u' and b = mean of s u over customers, of those that have it; W = mean of s u u' of all

Means are over the declared customers. Without weights and noise that is iALS. With noise, A is the noisiest for what it
tells: it is drawn towards its share of W as far as the noise's known size says.

References:
    Hu, Y., Koren, Y. and Volinsky, C. (2008). Collaborative filtering for implicit feedback datasets. ICDM.
    Rendle, S., Krichene, W., Zhang, L. and Koren, Y. (2021). Revisiting the performance of iALS. arXiv 2110.14037.
    Green, E. J. and Strawderman, W. E. (1991). A James-Stein type estimator for combining unbiased and possibly biased
    estimators. Journal of the American Statistical Association 86.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories
from coterie.models.recommenders.popularity import kept_items, places, popularity_scores, shares
from coterie.models.recommenders.settings import Recommender

__all__ = ["SWEEP", "Sweep", "advance", "ials_scores", "initial", "sum_size", "vectors"]

_START = 0.3
"""Length of the items' first factors, about."""

_LEAST_LIFT, _MOST_LIFT, _LIFT_POWER = 0.1, 1e6, 0.75
"""As for item-gram: what is far from popularity is partly noise."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Public constants of a sweep, for customers, partners and the server alike.

    Args:
        unobserved: Weight of items that a customer does not have.
        ridge: Ridge of a customer's vector for each unit of weight; that of the items is the recommender's.
        curvature: What a customer adds to A is multiplied by, before it is brought to unit length.
        whole: What a customer adds to W is multiplied by.
    """

    unobserved: float = 1.0
    ridge: float = 0.02
    curvature: float = 0.5
    whole: float = 0.3


SWEEP = Sweep()
"""Chosen on validation items of MovieLens-100K, outside every guarantee, among some 1,000 settings."""


def initial(settings: Recommender) -> NDArray[np.float32]:
    """Return public first factors: normal numbers of a fixed seed, shape (kept, dimension)."""
    numbers = np.random.default_rng(1).standard_normal((settings.kept, settings.dimension))
    return np.asarray(numbers * _START / settings.dimension**0.5, dtype=np.float32)


def sum_size(settings: Recommender) -> int:
    """Return how many coordinates a sweep's sum has: all A, all b, and W."""
    cells = settings.dimension * (settings.dimension + 1) // 2
    return settings.kept * (cells + settings.dimension) + cells


def advance(
    settings: Recommender,
    factors: NDArray[np.float32],
    mean: NDArray[np.float64],
    *,
    noise: float,
    customers: float,
) -> NDArray[np.float32]:
    """Return the items' factors after a sweep.

    Args:
        settings: The recommender; its ridge is in units of the mean.
        factors: Before, (kept, dimension): they are in the sum already, so only their shape is used.
        mean: The sum over the declared customers, shape (`sum_size`,): A item after item as triangles, off the diagonal
            times sqrt(2) and all times `curvature`; b item after item; W as one triangle times `whole`.
        noise: Standard deviation of every coordinate of it.
        customers: How many customers were declared; the mean is of them already, so nothing more follows from it.

    Returns:
        Shape (kept, dimension).

    Raises:
        ValueError: The mean is not of the recommender's size, or the customers are not above zero.

    Guarantees:
        Post-processing of a paid release: it costs nothing.
    """
    if len(mean) != sum_size(settings) or not customers > 0:
        raise ValueError("the mean is not of the recommender's size, or nobody was declared")
    kept, size = factors.shape
    cells = size * (size + 1) // 2
    own = mean[: kept * cells].reshape(kept, cells) / SWEEP.curvature
    right = mean[kept * cells : kept * (cells + size)].reshape(kept, size)
    whole = mean[kept * (cells + size) :] / SWEEP.whole
    if noise > 0:
        own = _drawn(own, whole, noise / SWEEP.curvature)
    left = _positive(_squares(own, size)) + SWEEP.unobserved * _positive(_squares(whole[None], size))
    left += settings.ridge * np.eye(size)
    return np.linalg.solve(left, right[:, :, None])[:, :, 0].astype(np.float32)


def vectors(settings: Recommender, weights: Sequence[NDArray[np.float32]], histories: Histories) -> NDArray[np.float64]:
    """Return customers' own vectors, (customers, dimension); zeros for one without a kept item.

    Args:
        settings: The recommender.
        weights: Popularity (items,), factors (kept, dimension).
        histories: Their own.

    Leaks:
        Made at home from a customer's own history, and as secret.
    """
    index, _ = kept_items(weights[0], settings)
    factors = weights[1].astype(np.float64)
    kept, size = factors.shape
    where = places(index, settings.items)[histories.items]
    # What is not kept has place -1, and so the last row, of zeros.
    known = np.concatenate([factors, np.zeros((1, size))])[where]
    sums = _summed(known, histories)
    left = np.stack([_summed(known * known[:, [j]], histories) for j in range(size)], axis=1)
    left += SWEEP.unobserved * (factors.T @ factors)
    own = _summed((where >= 0).astype(np.float64)[:, None], histories)
    left += (SWEEP.ridge * (own + SWEEP.unobserved * kept))[:, :, None] * np.eye(size)
    try:
        return np.asarray(np.linalg.solve(left, sums[:, :, None])[:, :, 0], dtype=np.float64)
    except np.linalg.LinAlgError:
        # Factors so large that the ridge is lost beside them: whose history met them is not to be told by a refusal.
        return np.zeros_like(sums)


def ials_scores(
    settings: Recommender, weights: Sequence[NDArray[np.float32]], histories: Histories
) -> NDArray[np.float32]:
    """Score every item for some customers: the logarithm of popularity, and of the lift that their vectors give.

    Args:
        settings: The recommender.
        weights: Popularity (items,), factors (kept, dimension).
        histories: Their own; a customer without a kept item gets popularity.

    Returns:
        Shape (customers, items). Items that are not modelled have the lift of popularity, 1.

    Leaks:
        Made at home from a customer's own history; whoever sees a customer's scores learns of its history.
    """
    index, _ = kept_items(weights[0], settings)
    share = shares(weights[0])[index].astype(np.float32)
    predicted = vectors(settings, weights, histories).astype(np.float32) @ weights[1].T
    # A customer's level is that at which its predictions are popularity; a lift is a prediction over level * share.
    level = predicted @ share / (share @ share)
    known = level > 0
    lifts = np.ones_like(predicted)
    with np.errstate(over="ignore"):
        lifts[known] = predicted[known] / level[known, None] / share
    scores = popularity_scores(settings, weights, histories)
    scores[:, index] += np.float32(_LIFT_POWER) * np.log(np.clip(lifts, _LEAST_LIFT, _MOST_LIFT))
    return scores


def _summed(values: NDArray[np.float64], histories: Histories) -> NDArray[np.float64]:
    """Return the sums of each customer's rows, (customers, columns)."""
    # An empty sum would be the next row, so there is one more, and empty sums are put right.
    padded = np.concatenate([values, np.zeros((1, values.shape[1]))])
    sums = np.add.reduceat(padded, histories.starts[:-1], axis=0)
    return np.asarray(np.where((histories.lengths > 0)[:, None], sums, 0.0), dtype=np.float64)


def _squares(triangles: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the symmetric matrices of isometric upper triangles, (..., size, size)."""
    rows, columns = np.triu_indices(size)
    cells = triangles / np.where(rows == columns, 1.0, np.sqrt(2.0))
    matrices = np.empty((len(triangles), size, size))
    matrices[:, rows, columns] = cells
    matrices[:, columns, rows] = cells
    return matrices


def _positive(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest matrices without eigenvalues below 0, which a sum of u u' has none of and noise has."""
    values, found = np.linalg.eigh(matrices)
    return np.asarray((found * np.maximum(values, 0.0)[:, None, :]) @ found.transpose(0, 2, 1), dtype=np.float64)


def _drawn(own: NDArray[np.float64], whole: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """Return each item's noisy sum, drawn towards its share of the whole.

    By the positive part of James and Stein's factor, 1 - (d - 2) noise^2 / |what differs|^2 for d coordinates; a share
    of the whole need not be right for that (Green and Strawderman 1991).
    """
    share = np.clip(own @ whole / max(float(whole @ whole), np.finfo(np.float64).tiny), 0.0, 1.0)
    middle = share[:, None] * whole
    apart = np.maximum(np.square(own - middle).sum(axis=1), np.finfo(np.float64).tiny)
    factor = np.maximum(0.0, 1 - max(own.shape[1] - 2, 0) * noise**2 / apart)
    return np.asarray(middle + factor[:, None] * (own - middle), dtype=np.float64)
