"""What one customer adds to a recommender's sums, by dense arithmetic that shares no code with the sums themselves.

Whoever attacks or checks may take its time: vectors have all their coordinates, matrices are solved by a library, and
gradients come from plain autograd.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.models.recommenders.ials import SWEEP

__all__ = ["Shown", "count_vector", "gradient_rows", "gram_vector", "sweep_vector"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """What all know of a step of a trained family.

    Args:
        table: Embeddings of the items, (items, d).
        bias: What is added to their scores, (items,).
        negatives: Items that stand for the rest, (N,).
        halves: In which half each item is, 0 or 1, (items,).
    """

    table: NDArray[np.float32]
    bias: NDArray[np.float32]
    negatives: Integers
    halves: Integers


def count_vector(own: Sequence[int], items: int) -> Floats:
    """Return a customer's items at unit length, shape (items,)."""
    row = np.zeros(items)
    row[list(own)] = 1.0
    return row / np.linalg.norm(row)


def gram_vector(own: Sequence[int], scale: Floats) -> Floats:
    """Return the products of a customer's scaled row at unit length, as an isometric upper triangle.

    Args:
        own: Its places among the kept items.
        scale: Factor of each kept item, (kept,).

    Returns:
        Shape (kept * (kept + 1) / 2,), row by row.
    """
    row = np.zeros(len(scale))
    row[list(own)] = scale[list(own)]
    row /= np.linalg.norm(row) or 1.0
    return _triangle(np.outer(row, row))


def sweep_vector(own: Sequence[int], factors: NDArray[np.float32]) -> Floats:
    """Return what a customer adds to a sweep of alternating least squares, at unit length.

    Args:
        own: Its places among the kept items.
        factors: Published, (kept, d).
    """
    table = factors.astype(np.float64)
    kept, size = table.shape
    mine, cells = table[list(own)], size * (size + 1) // 2
    ridge = SWEEP.ridge * (len(mine) + SWEEP.unobserved * kept)
    left = mine.T @ mine + SWEEP.unobserved * table.T @ table + ridge * np.eye(size)
    vector = np.linalg.solve(left, mine.sum(axis=0))
    products, vectors = np.zeros((kept, cells)), np.zeros((kept, size))
    once = _triangle(np.outer(vector, vector))
    products[list(own)], vectors[list(own)] = SWEEP.curvature * once, vector
    together = np.concatenate([products.ravel(), vectors.ravel(), SWEEP.whole * once])
    return np.asarray(together / (np.linalg.norm(together) or 1.0))


def gradient_rows(own: Integers, shown: Shown) -> tuple[Integers, Floats]:
    """Return customers' gradients of the sampled softmax, each by itself, by plain autograd.

    Args:
        own: Items of customers that have equally many, (customers, L).
        shown: What all know of the step.

    Returns:
        Items of which a row has a gradient, and that gradient, (customers, L + N) and (customers, L + N, d); no two
        rows of a customer that are not zero are of one item.
    """
    customers, count = own.shape
    slots = np.concatenate([own, np.tile(shown.negatives, (customers, 1))], axis=1)
    live = torch.from_numpy((shown.negatives[None, :, None] != own[:, None, :]).all(axis=2))
    rows = torch.from_numpy(shown.table[slots].astype(np.float64)).requires_grad_()
    bias = torch.from_numpy(shown.bias[slots].astype(np.float64))
    half = torch.from_numpy(shown.halves[own])
    # The sampled items stand for all of the catalogue.
    weight = math.log(len(shown.bias) / len(shown.negatives))
    loss = torch.zeros(customers, dtype=torch.float64)
    for view in (0, 1):
        seen = (half == view).double()
        pooled = (rows[:, :count] * seen[..., None]).sum(dim=1)
        pooled = pooled / seen.sum(dim=1).clamp(min=1.0).sqrt()[:, None]
        scores = (rows @ pooled[..., None])[..., 0] + bias
        rest = (scores[:, count:] + weight).masked_fill(~live, -math.inf).logsumexp(dim=1)
        missed = torch.logaddexp(scores[:, :count], rest[:, None]) - scores[:, :count]
        loss = loss + (missed * (1.0 - seen)).sum(dim=1) / count
    (gradients,) = torch.autograd.grad(loss.sum(), rows)
    return slots, gradients.numpy()


def _triangle(square: Floats) -> Floats:
    """Return the upper triangle of a symmetric matrix with its length: off the diagonal times sqrt(2)."""
    rows, columns = np.triu_indices(len(square))
    return np.asarray(square[rows, columns] * np.where(rows == columns, 1.0, math.sqrt(2.0)))
