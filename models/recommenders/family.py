"""The one interface of all families: shapes, a public start, what a sum makes of the model, and local scores.

count/1       popularity is set, and with it which items item-gram and ials model
train/STEP    popularity: popularity; item-gram: factors and strengths; ials: factors; the others: a gradient step,
              which the server takes with its optimiser
scores        a customer's own history and the model, at home
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories
from coterie.models.recommenders import gram, hybrid, ials, popularity, towers, towerscores
from coterie.models.recommenders.settings import TRAINED, Recommender

__all__ = ["Weights", "advance", "counted", "initial", "scorer", "shapes", "sum_size"]

Weights = tuple[NDArray[np.float32], ...]


def shapes(settings: Recommender) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a family's weights; the first is popularity's."""
    first = (settings.items,)
    if settings.family == "popularity":
        return (first,)
    if settings.family == "item-gram":
        return first, (settings.kept, settings.rank), (settings.rank,)
    if settings.family == "ials":
        return first, (settings.kept, settings.dimension)
    return first, *towers.shapes(settings)


def initial(settings: Recommender) -> Weights:
    """Return the public weights that a study starts from."""
    nothing = np.zeros(settings.items, dtype=np.float32)
    if settings.family in TRAINED:
        return nothing, *towers.initial(settings, 0)
    if settings.family == "ials":
        return nothing, ials.initial(settings)
    return nothing, *(np.zeros(shape, dtype=np.float32) for shape in shapes(settings)[1:])


def sum_size(settings: Recommender) -> int:
    """Return how many coordinates a sum of training has; that of popularity has one for each item."""
    kept = settings.kept
    if settings.family == "popularity":
        return settings.items
    if settings.family == "item-gram":
        return kept * (kept + 1) // 2
    if settings.family == "ials":
        return ials.sum_size(settings)
    return sum(int(np.prod(shape)) for shape in towers.shapes(settings))


def counted(weights: Weights, mean: NDArray[np.float64], *, noise: float) -> Weights:
    """Return the weights with popularity set from the noisy mean over customers, shape (items,).

    Args:
        weights: Before.
        mean: The sum over the declared customers.
        noise: Standard deviation of every coordinate of it.
    """
    return popularity.smoothed(mean, noise=noise), *weights[1:]


def advance(
    settings: Recommender, weights: Weights, mean: NDArray[np.float64], *, noise: float, customers: float
) -> Weights:
    """Return the weights after a sum of a family that is not trained by gradients.

    Args:
        settings: The recommender.
        weights: Before.
        mean: The sum over the declared customers, shape (`sum_size`,).
        noise: Standard deviation of every coordinate of it.
        customers: How many customers were declared.

    Raises:
        ValueError: The family is trained by gradients.
    """
    if settings.family == "popularity":
        return counted(weights, mean, noise=noise)
    if settings.family == "item-gram":
        return weights[0], *gram.fit_gram(settings, mean, noise=noise, customers=customers)
    if settings.family == "ials":
        return weights[0], ials.advance(settings, weights[1], mean, noise=noise, customers=customers)
    raise ValueError(f"{settings.family} is trained by gradients")


def scorer(
    settings: Recommender, weights: Sequence[NDArray[np.float32]], attributes: NDArray[np.float32] | None = None
) -> Callable[[Histories], NDArray[np.float32]]:
    """Return what scores every item for some customers, at home.

    Args:
        settings: The recommender.
        weights: The published model.
        attributes: Encoded public attributes, (items, attributes); needed where the plan has a content term or the
            family uses them.

    Returns:
        From histories to scores of shape (customers, items); owned items are scored too.

    Leaks:
        Everything: scores are made of a customer's history, and stay with the partner.
    """
    base = _base(settings, weights, attributes)
    if not settings.content or attributes is None or not attributes.shape[1]:
        return base
    content = hybrid.Content.of(attributes, weights[0])
    return lambda histories: hybrid.combined(settings, base(histories), histories, content)


def _base(
    settings: Recommender, weights: Sequence[NDArray[np.float32]], attributes: NDArray[np.float32] | None
) -> Callable[[Histories], NDArray[np.float32]]:
    family = settings.family
    if family == "popularity":
        return lambda histories: popularity.popularity_scores(settings, weights, histories)
    if family == "item-gram":
        return gram.gram_scorer(settings, weights)
    if family == "ials":
        return lambda histories: ials.ials_scores(settings, weights, histories)
    known = np.zeros((settings.items, 0), dtype=np.float32) if attributes is None else attributes
    return lambda histories: towerscores.scores(settings, weights, histories=histories, attributes=known)
