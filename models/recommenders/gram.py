"""Item-Gram: a recommender from one noisy sum of customers' item-item products.

    sum of z z' + noise -> symmetric matrix -> eigenvalues above the noise, less what noise added to them
    -> item-side ridge regression (EASE) of that rank -> how much likelier than by popularity an item is for a customer

References:
    Benaych-Georges, F. and Nadakuditi, R. R. (2011). The eigenvalues and eigenvectors of finite, low rank perturbations
    of large random matrices. Advances in Mathematics 227.
    Gavish, M. and Donoho, D. L. (2017). Optimal shrinkage of singular values. IEEE Trans. Information Theory 63(4).
    Steck, H. (2019). Embarrassingly shallow autoencoders for sparse data. WWW 2019.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories
from coterie.models.recommenders.choice import falls_back
from coterie.models.recommenders.popularity import kept_items, places, popularity_scores, shares
from coterie.models.recommenders.recency import faded
from coterie.models.recommenders.settings import Recommender

__all__ = ["HALF_LIFE", "denoised", "fit_gram", "gram_scorer", "gram_scores", "symmetric"]

HALF_LIFE = 5.0
"""So many newer items halve what an item says about what comes next; chosen on held-out items of two data sets."""

_LEAST_LIFT = 0.2
"""No item is taken to be less likely than a fifth of what its popularity says."""

_GREATEST_LIFT = 1e6
"""Beyond this a level was rounding."""

_LIFT_POWER = 0.75
"""Lifts are drawn towards one: what is far from it is partly noise."""

_UNSCALED = 2.0
"""Predictions are divided by the rows' scale to this power: 1 undoes the scale, and more favours what is popular."""

_LEAST_VALUE = 1e-12
"""Eigenvalues below this are rounding, with or without noise."""

_LEAST_RESIDUAL = 0.05
"""Least diagonal of the residual that a prediction is divided by."""


def symmetric(triangle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric matrix of an isometric upper triangle: row by row, off its diagonal times sqrt(2).

    Args:
        triangle: Shape (kept * (kept + 1) / 2,).

    Returns:
        Shape (kept, kept).
    """
    kept = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    square = np.zeros((kept, kept))
    square[np.triu_indices(kept)] = triangle / np.sqrt(2)
    # The diagonal is there twice, and each time less its root of two: it wants that root once more.
    square = square + square.T
    square[np.diag_indices(kept)] /= np.sqrt(2)
    return square


def denoised(
    matrix: NDArray[np.float64], *, noise: float, rank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvectors of a noisy symmetric matrix that stand out of the noise, and what is known of them.

    Noise alone has its greatest eigenvalue at the edge R = noise * sqrt(2 kept). A value t of the matrix without noise
    is seen at l = t + R^2 / 4t if t > R / 2, and not at all otherwise; its vector is found up to the squared cosine
    1 - R^2 / 4t^2 (Benaych-Georges and Nadakuditi, 2011, section 3.1). The value that is best for the vector found in
    Frobenius norm is their product, sqrt(l^2 - R^2) (Gavish and Donoho, 2017).

    Args:
        matrix: Symmetric, shape (kept, kept).
        noise: Standard deviation of a diagonal cell; beside the diagonal it is that over sqrt(2).
        rank: How many vectors at most.

    Returns:
        Vectors in columns, (kept, found), the best values for them, above zero and the greatest first, (found,), and
        the squared cosines between them and the vectors without noise, (found,).

    Guarantees:
        The noise's size is public, so choosing by it is post-processing.
    """
    values, vectors = np.linalg.eigh(matrix)
    edge = noise * np.sqrt(2 * len(matrix))
    found = np.flatnonzero(values > max(edge, _LEAST_VALUE))[::-1][:rank]
    best = np.sqrt(values[found] ** 2 - edge**2)
    clean = (values[found] + best) / 2  # t
    return vectors[:, found], best, 1 - np.square(edge / clean) / 4


def fit_gram(
    settings: Recommender, mean: NDArray[np.float64], *, noise: float, customers: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make the model of a noisy mean of Gram matrices.

    The ridge regression of every item on the others has the residual matrix P = I - V diag(c) V', c = t / (t + ridge),
    for eigenvectors V and values t (Steck, 2019, equation 8, at low rank). A vector that was found among noise shows
    of the one without noise as much as the squared cosine between them, so c is that times the cosine. V and c are the
    model.

    Args:
        settings: The recommender; its ridge is in units of the mean, whose trace is about 1.
        mean: The sum over the declared customers, isometric upper triangle, shape (kept * (kept + 1) / 2,).
        noise: Standard deviation of every coordinate of it.
        customers: How many customers were declared; the mean is of them already, so nothing more follows from it.

    Returns:
        Factors V, (kept, rank), and strengths c in [0, 1), (rank,); zeros beyond the rank that stands out of the noise.

    Raises:
        ValueError: The mean is not of the recommender's size, or the customers are not above zero.

    Guarantees:
        Post-processing of a paid release: it costs nothing.
    """
    kept = settings.kept
    if len(mean) != kept * (kept + 1) // 2 or not customers > 0:
        raise ValueError("the mean is not of the recommender's size, or nobody was declared")
    vectors, values, cosines = denoised(symmetric(mean), noise=noise, rank=min(settings.rank, kept))
    factors = np.zeros((kept, settings.rank), dtype=np.float32)
    strengths = np.zeros(settings.rank, dtype=np.float32)
    factors[:, : len(values)] = vectors
    strengths[: len(values)] = cosines * values / (values + settings.ridge)
    return factors, strengths


def gram_scores(
    settings: Recommender,
    weights: Sequence[NDArray[np.float32]],
    histories: Histories,
    *,
    half_life: float = HALF_LIFE,
) -> NDArray[np.float32]:
    """Score every item for some customers: the logarithm of popularity, and of the lift that their history gives.

    Args:
        settings: The recommender.
        weights: Popularity (items,), factors (kept, rank), strengths (rank,).
        histories: Their own; a customer without any gets popularity, and all do where the model `falls_back`.
        half_life: How many newer items halve an item's weight; 0 for no fading.

    Returns:
        Shape (customers, items). Items that are not modelled have the lift of popularity, 1.

    Leaks:
        Made at home from a customer's own history; whoever sees a customer's scores learns of its history.
    """
    return gram_scorer(settings, weights, half_life=half_life)(histories)


def gram_scorer(
    settings: Recommender, weights: Sequence[NDArray[np.float32]], *, half_life: float = HALF_LIFE
) -> Callable[[Histories], NDArray[np.float32]]:
    """Return `gram_scores` for one model, with what is the same for all customers worked out once.

    Args:
        settings: The recommender.
        weights: Popularity (items,), factors (kept, rank), strengths (rank,).
        half_life: How many newer items halve an item's weight; 0 for no fading.

    Leaks:
        As `gram_scores`.
    """
    if falls_back(weights[2]):
        return lambda histories: popularity_scores(settings, weights, histories)
    index, scale = kept_items(weights[0], settings)
    position, share = places(index, settings.items), shares(weights[0])[index]
    left, right = _sides(weights[1], weights[2], scale, share)
    level = right.T @ (share * share / (share @ share)).astype(np.float32)

    def scores(histories: Histories) -> NDArray[np.float32]:
        found = popularity_scores(settings, weights, histories)
        profile = _rows(histories, position, scale, faded(histories, half_life)) @ left
        lifts = _lifts(profile, level, right)
        np.log(np.clip(lifts, _LEAST_LIFT, _GREATEST_LIFT, out=lifts), out=lifts)
        found[:, index] += np.multiply(lifts, np.float32(_LIFT_POWER), out=lifts)
        return found

    return scores


def _lifts(profile: NDArray[np.float32], level: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return predictions over what they were if they were popularity at the customer's own level; 1 without a level."""
    own = profile @ level
    known = own > 0
    lifts: NDArray[np.float32] = np.divide(profile, np.where(known, own, 1)[:, None]) @ right.T
    lifts[~known] = 1.0
    return lifts


def _sides(
    factors: NDArray[np.float32],
    strengths: NDArray[np.float32],
    scale: NDArray[np.float64],
    share: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return L and R so that z L R' is the prediction for a row z, over each item's share of popularity."""
    vectors = factors.astype(np.float64)
    residual = np.maximum(1 - np.square(vectors) @ strengths, _LEAST_RESIDUAL)
    right = vectors * strengths / (residual * scale**_UNSCALED * share)[:, None]
    return factors, right.astype(np.float32)


def _rows(
    histories: Histories, position: NDArray[np.int64], scale: NDArray[np.float64], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return customers' scaled rows over the kept items, at any length: their level divides it out."""
    rows = np.zeros((len(histories), len(scale)), dtype=np.float32)
    owners, where = np.repeat(np.arange(len(histories)), histories.lengths), position[histories.items]
    some = where >= 0
    rows[owners[some], where[some]] = scale[where[some]] * weight[some]
    return rows
