"""Why an item is in a list: which items of the customer's own history speak for it most.

A linear item-item model adds up, for an item i, what each item j of the history contributes, and that is a product of
a vector of j and a vector of i. Where a family is not linear in the history, the cosine of the items' own vectors
stands in. "Because you bought ..." is found at home and never leaves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories

__all__ = ["Sides", "cosine_sides", "gram_sides", "reasons"]


@dataclass(frozen=True)
class Sides:
    """What items contribute to each other: j contributes giving[j] times receiving[i] to i.

    Args:
        giving: (items, numbers).
        receiving: (items, numbers).
    """

    giving: NDArray[np.float32]
    receiving: NDArray[np.float32]


def gram_sides(
    factors: NDArray[np.float32],
    strengths: NDArray[np.float32],
    index: NDArray[np.int64],
    *,
    items: int,
    scale: NDArray[np.float64] | None = None,
) -> Sides:
    """Return the contributions of low-rank EASE, with P = I - V diag(c) V': of j to i, -P_ji / P_ii.

    That is the weight of j in the regression of i on all other items (Steck 2019, "Embarrassingly Shallow
    Autoencoders for Sparse Data", eq. 8). Items that are not modelled contribute nothing and receive nothing.

    Args:
        factors: V, (kept, rank).
        strengths: c, shape (rank,), each below 1.
        index: The kept items' positions in the catalogue, shape (kept,).
        items: Items of the catalogue.
        scale: What a history's entry is multiplied by before the regression, shape (kept,); 1 when None.
    """
    receiving = factors * strengths
    own = np.einsum("ij,ij->i", receiving, factors)
    # A prediction for i is divided by the scale of i again, which orders nothing among its reasons.
    sides = Sides(np.zeros((items, factors.shape[1]), np.float32), np.zeros((items, factors.shape[1]), np.float32))
    sides.giving[index] = factors if scale is None else factors * scale[:, None]
    sides.receiving[index] = receiving / np.maximum(1 - own, 1e-6)[:, None]
    return sides


def cosine_sides(vectors: NDArray[np.float32]) -> Sides:
    """Return cosines of item vectors, such as factors, embeddings or encoded attributes, as contributions.

    Args:
        vectors: (items, numbers); zeros contribute nothing.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return Sides(unit, unit)


def reasons(lists: NDArray[np.int64], histories: Histories, sides: Sides, *, count: int = 1) -> NDArray[np.int64]:
    """Return the items of each customer's history that contribute most to each recommended item, most first.

    Args:
        lists: Recommended items, (customers, top); -1 for none.
        histories: What these customers have, in the same order.
        sides: Of the model.
        count: How many reasons for each.

    Returns:
        Shape (customers, top, count); -1 where nothing more of the history speaks for the item. Of equal ones the
        older comes first; a recommended item is no reason for itself.

    Leaks:
        Items of customers' histories: they stay with the partner.
    """
    found = np.full((*lists.shape, count), -1, dtype=np.int64)
    for row, recommended in enumerate(lists):
        own = histories.items[histories.starts[row] : histories.starts[row + 1]]
        if not len(own):
            continue
        adds = sides.receiving[recommended] @ sides.giving[own].T  # (top, own)
        adds[(recommended[:, None] == own) | (recommended < 0)[:, None]] = 0
        order = np.argsort(-adds, axis=1, kind="stable")[:, :count]
        speaks = np.take_along_axis(adds, order, axis=1) > 0
        found[row, :, : order.shape[1]] = np.where(speaks, own[order], -1)
    return found
