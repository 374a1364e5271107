"""What a partner's customers add to a recommender: one vector of whole numbers for each sum, and held-out ranks.

Every customer's part is bounded by itself, whatever the others are (`privacy/training/`); nothing of a customer's
tastes or history is in any message by itself.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import recommender_of
from coterie.models.histories import Histories
from coterie.models.rankcounts import rank_bins, rank_counts
from coterie.models.ranking import ranks
from coterie.models.recommenders import family, towers
from coterie.models.recommenders.draws import halves, negatives
from coterie.models.recommenders.ials import SWEEP
from coterie.models.recommenders.popularity import kept_items, places, popularity_scores
from coterie.models.recommenders.settings import TRAINED, Recommender
from coterie.models.recommenders.towerscores import log_popularity
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import Stream
from coterie.privacy.schedule import COUNT
from coterie.privacy.secagg.numbers import Numbers
from coterie.privacy.training.alssums import AlsSettings, als_total
from coterie.privacy.training.baskets import Public
from coterie.privacy.training.gradientsums import GradientSettings, GradientSummer
from coterie.privacy.training.historysums import Units, count_total, gram_total

__all__ = ["Asked", "rank_histogram", "recommender_total"]


@dataclass(frozen=True)
class Asked:
    """What a sum is about; all of it is public.

    Args:
        plan: The plan.
        weights: The model.
        attributes: Encoded public attributes of the items, (items, attributes); None where the plan has none.
    """

    plan: Plan
    weights: family.Weights
    attributes: NDArray[np.float32] | None


def recommender_total(
    asked: Asked, step: str, histories: Histories, *, numbers: Numbers, stream: Stream
) -> NDArray[np.int64]:
    """Sum the training customers' parts of one of a plan's sums, without noise.

    Args:
        asked: What the sum is about.
        step: "count/1", or "train/" and the step.
        histories: The training customers'.
        numbers: The whole numbers in which the sum is made.
        stream: Secret randomness of the sample, for families that are trained by gradients.

    Guarantees:
        Adding or removing a customer changes the sum by a vector of whole numbers of L2 norm at most
        `numbers.sensitivity` over the plan's parts (`historysums.py`, `alssums.py`, `gradientsums.py`).

    Leaks:
        Everything, as it stands: it is for masking with noise that is paid for, and for nothing else.
    """
    settings, weights = recommender_of(asked.plan), asked.weights
    starts, items = histories.starts, histories.items
    units = Units(sensitivity=numbers.sensitivity, bound=numbers.bound, parts=asked.plan.parts)
    if step.startswith(f"{COUNT}/") or settings.family == "popularity":
        return count_total(starts, items, size=settings.items, units=units)
    if settings.family in TRAINED:
        return _gradients(asked, step, histories, numbers=numbers, stream=stream)
    index, scale = kept_items(weights[0], settings)
    position = places(index, settings.items)
    if settings.family == "item-gram":
        return gram_total(starts, items, position=position, scale=scale, longest=settings.longest, units=units)
    how = AlsSettings(
        longest=settings.longest,
        unobserved=SWEEP.unobserved,
        ridge=SWEEP.ridge,
        curvature=SWEEP.curvature,
        whole=SWEEP.whole,
    )
    return als_total(starts, items, position=position, factors=weights[1], settings=how, units=units)


def rank_histogram(asked: Asked, histories: Histories, *, stream: Stream) -> NDArray[np.int64]:
    """Count held-out customers by the rank of their last item, without noise.

    Every customer with two items or more is asked about its last one, under one of two rankings drawn at random: row 0
    ranks by popularity, the floor, and row 1 by the model, from the customer's other items.

    Returns:
        Shape (2, bins).

    Guarantees:
        A customer changes one count by 1. Customers are scored one at a time, so that no bit of a score depends on
        who else is there.

    Leaks:
        Everything, as it stands: only with noise may it leave.
    """
    settings, bins = recommender_of(asked.plan), asked.plan.metrics.bins
    edges = rank_bins(settings.items, bins)
    counts = np.zeros((2, bins), dtype=np.int64)
    by_model = family.scorer(settings, asked.weights, asked.attributes)
    coins = stream.uniforms(len(histories)) < 0.5
    for customer in np.flatnonzero(histories.lengths > 1):
        seen, held = histories.of(np.array([customer])).without_last()
        row = int(coins[customer])
        scores = by_model(seen) if row else popularity_scores(settings, asked.weights, seen)
        counts[row, : len(edges) - 1] += rank_counts(ranks(scores, seen, held), edges)
    return counts


def _gradients(asked: Asked, step: str, histories: Histories, *, numbers: Numbers, stream: Stream) -> NDArray[np.int64]:
    plan, weights, attributes = asked.plan, asked.weights, asked.attributes
    settings = recommender_of(plan)
    number = int(step.partition("/")[2])
    public = Public(
        negatives=negatives(settings, number),
        halves=halves(settings, number),
        attributes=np.zeros((settings.items, 0), dtype=np.float32) if attributes is None else attributes,
        bias=log_popularity(weights[0]),
    )
    how = GradientSettings(
        clip=plan.training.clip / plan.parts,
        sensitivity=numbers.sensitivity // plan.parts,
        bound=numbers.bound,
        sample_rate=plan.training.sample_rate,
        longest=settings.longest,
    )
    return _summer(settings).total(
        weights[1:], (histories.starts, histories.items), settings=how, public=public, stream=stream
    )


@functools.lru_cache(maxsize=2)
def _summer(settings: Recommender) -> GradientSummer:
    """Return this process's one summer for a recommender; weights are overwritten by each sum."""
    return GradientSummer(towers.build(settings))
