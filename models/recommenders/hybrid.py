"""Hybrids: what public attributes of items say beside a family's scores, for the customer whose history is at hand.

A customer chooses item j with probability in proportion to p_j exp(theta' b_j): popularity, and a taste theta for
attributes b. Its history's mean less the mean by popularity is the gradient of its likelihood at theta = 0, and with
the attributes' covariance by popularity as curvature one Newton step with a ridge finds a taste (the step that
discriminant analysis takes in one go). No statistic of others is in it but popularity, which is paid for and published.

A customer without a history has no taste, and gets the family's scores; an item that nobody counted is ranked by its
attributes, from the floor that popularity gives it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories
from coterie.models.recommenders.popularity import shares
from coterie.models.recommenders.recency import faded
from coterie.models.recommenders.settings import Recommender

__all__ = ["HALF_LIFE", "Content", "combined"]

HALF_LIFE = 10.0
"""So many newer items halve what an item says about a taste; chosen on held-out items of two data sets."""

_RIDGE = 0.5
"""The ridge of a taste found from one item, as a share of the attributes' whole variance."""


@dataclass(frozen=True, eq=False)
class Content:
    """Public attributes of the items of a catalogue, turned so that their covariance by popularity is diagonal.

    Args:
        axes: (items, attributes), with mean zero by popularity.
        spread: Variance of each axis by popularity, (attributes,).
        turn: From attributes to axes, (attributes, attributes).
    """

    axes: NDArray[np.float32]
    spread: NDArray[np.float64]
    turn: NDArray[np.float32]

    @classmethod
    def of(cls, attributes: NDArray[np.float32], popularity: NDArray[np.float32]) -> "Content":
        """Return the content of a catalogue.

        Args:
            attributes: Encoded, shape (items, attributes), at least one column; above zero where an item has the
                attribute. How large a cell is plays no part: an item that has many attributes has each of them.
            popularity: Noisy mean over customers, shape (items,).

        Guarantees:
            Made of public attributes and a paid release: it costs nothing.
        """
        share = shares(popularity)
        share /= share.sum()
        present = (attributes > 0).astype(np.float32)
        centred = present - (share @ present).astype(np.float32)
        spread, turn = np.linalg.eigh((centred * share[:, None]).T @ centred.astype(np.float64))
        turned = turn.astype(np.float32)
        return cls(centred @ turned, np.maximum(spread, 0.0), turned)

    def tastes(self, histories: Histories, *, half_life: float = HALF_LIFE) -> NDArray[np.float32]:
        """Return each customer's taste along the axes, shape (customers, attributes); zeros without a history.

        Args:
            histories: The customers' own.
            half_life: How many newer items halve an item's weight; 0 for no fading.

        Leaks:
            Made at home from a customer's own history, and used there.
        """
        tastes = np.zeros((len(histories), len(self.spread)))
        some = histories.lengths > 0
        begins = histories.starts[:-1][some]
        if not len(begins):
            return tastes.astype(np.float32)
        weight = faded(histories, half_life)
        whole = np.add.reduceat(weight, begins).astype(np.float64)
        summed = np.add.reduceat(self.axes[histories.items] * weight[:, None], begins, axis=0)
        # So many equal weights would be as much evidence.
        evidence = whole**2 / np.add.reduceat(weight * weight, begins)
        ridge = _RIDGE * self.spread.sum() / evidence
        tastes[some] = summed / whole[:, None] / (self.spread + ridge[:, None] + np.finfo(np.float64).tiny)
        return tastes.astype(np.float32)


def combined(
    settings: Recommender,
    base: NDArray[np.float32],
    histories: Histories,
    content: Content,
    *,
    half_life: float = HALF_LIFE,
    context: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Add to a family's scores what items' public attributes say for each customer.

    Args:
        settings: The recommender; its `content` is the weight.
        base: The family's scores, on the scale of logarithms, (customers, items).
        histories: The customers' own.
        content: Of the catalogue.
        half_life: How many newer items halve an item's weight; 0 for no fading.
        context: What the moment asks for, as a direction in the encoded attributes (of the season, the weekday, the
            basket that is being filled), (attributes,) for all or (customers, attributes).

    Returns:
        Shape (customers, items).

    Guarantees:
        All of it is done at home, with public attributes and the published model: it releases nothing and costs no
        budget.

    Leaks:
        Whoever sees a customer's scores learns of its history.
    """
    tastes: NDArray[np.float32] = np.float32(settings.content) * content.tastes(histories, half_life=half_life)
    if context is not None:
        tastes = tastes + context.astype(np.float32) @ content.turn
    scores: NDArray[np.float32] = tastes @ content.axes.T
    scores += base
    return scores
