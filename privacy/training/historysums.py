"""Sums of customers' histories in whole numbers: how often items are there, and which of them together.

A customer's history is a row of zeros and ones, x. Two vectors are made from it, each of L2 norm at most 1:

    counts      x / ||x||
    Gram        with z = a x / ||a x|| over the kept items, a their public scale: the upper triangle of z z', row by
                row, z_i^2 on the diagonal and sqrt(2) z_i z_j beside it

The triangle is an isometry: the root of its sum of squares is the Frobenius norm of z z', and that is ||z||^2 = 1.
Noise of one size on all its coordinates is noise of the same law in every direction of the symmetric matrices.

A person at k partners: vectors of norm 1/k at each add up to norm 1 at most. For the counts that is x / (k ||x||); for
the Gram it is the matrix of a row scaled by 1 / sqrt(k), as ||z z'|| / k = 1 / k.

Noise is no matter of this module: every partner adds its share of it to the whole numbers, where it is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.privacy.secagg.numbers import greatest_norm
from coterie.privacy.training.rowwise import tree_sum

__all__ = ["Units", "count_total", "gram_total"]

_MOST_UNITS, _MOST_BOUND = 2**20, 2**62

_CELLS = 2**20
"""Numbers that a piece of customers may hold."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Whole numbers of a sum; all public.

    Args:
        sensitivity: D, how many units a norm of 1 is; at most 2**20, so that squares and sums fit in 64 bits.
        bound: Greatest size of a coordinate of the sum, in units.
        parts: Partners at which a person may be a customer, k.

    Raises:
        ValueError: A number is out of range.
    """

    sensitivity: int
    bound: int
    parts: int = 1

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not (1 <= self.parts <= self.sensitivity <= _MOST_UNITS and 1 <= self.bound <= _MOST_BOUND):
            raise ValueError(f"not 1 <= parts <= sensitivity <= {_MOST_UNITS}, or the bound not 1 to {_MOST_BOUND}")

    @property
    def each(self) -> int:
        """Greatest norm of a customer's vector, D // k."""
        return self.sensitivity // self.parts


def count_total(
    starts: NDArray[np.int64],
    items: NDArray[np.int64],
    *,
    size: int,
    units: Units,
) -> NDArray[np.int64]:
    """Sum customers' items at unit length.

    Args:
        starts: Where each customer's items begin and the last one's end, shape (customers + 1,). Private.
        items: Positions in the catalogue, shape (interactions,); what is outside it or there twice counts for nothing
            more. Private.
        size: Items of the catalogue.
        units: Of the total.

    Returns:
        Shape (size,).

    Raises:
        ValueError: The sensitivity leaves no room for rounding so many coordinates.

    Guarantees:
        Adding or removing one customer changes the total by a vector of whole numbers of L2 norm at most D // k,
        exactly: a customer's vector follows from its own items alone and is verified in whole numbers.

    Leaks:
        The total has no noise: it is for masking together with the partner's share of noise, and for nothing else.
    """
    greatest_norm(units.each, size)  # refused by public numbers alone
    owners, places = _distinct(starts, items, size)
    total = np.zeros(size, dtype=np.int64)
    for few in _alike(owners, places, cells=1):
        # A row of n ones has length sqrt(n), and IEEE 754 rounds that root as it rounds a product.
        length = np.sqrt(np.full(few.shape, float(few.shape[1])))
        np.add.at(total, few.ravel(), _whole(1.0 / length, units.each).ravel())
    return np.clip(total, -units.bound, units.bound)


def gram_total(
    starts: NDArray[np.int64],
    items: NDArray[np.int64],
    *,
    position: NDArray[np.int64],
    scale: NDArray[np.float64],
    longest: int,
    units: Units,
) -> NDArray[np.int64]:
    """Sum the Gram matrices of customers' scaled rows at unit length.

    Args:
        starts: Where each customer's items begin and the last one's end, shape (customers + 1,). Private.
        items: Positions in the catalogue, shape (interactions,), oldest first; what is outside it or there twice
            counts for nothing more. Private.
        position: Place of each of the catalogue's items among the kept ones, or -1, shape (items,).
        scale: Factor of each kept item, shape (kept,).
        longest: Items of a customer that count: so many of its last ones.
        units: Of the total.

    Returns:
        Shape (kept * (kept + 1) / 2,): the upper triangle row by row, off its diagonal times sqrt(2).

    Raises:
        ValueError: The sensitivity leaves no room for rounding so many coordinates.

    Guarantees:
        Adding or removing one customer changes the total by a vector of whole numbers of L2 norm at most D // k,
        exactly, whatever the scale is: a customer's vector follows from its own items alone, by elementwise operations
        and sums whose order follows from how many they are, and it is verified in whole numbers.

    Leaks:
        The total has no noise: it is for masking together with the partner's share of noise, and for nothing else.
    """
    greatest_norm(units.each, longest * (longest + 1) // 2)  # refused by public numbers alone
    kept = len(scale)
    last = np.arange(len(items)) >= np.repeat(starts[1:] - longest, np.diff(starts))
    known = last & (items >= 0) & (items < len(position))
    owners, places = _distinct(starts, np.where(known, position[np.where(known, items, 0)], -1), kept)
    # Where the row of i begins in the triangle, less i: the cell of (i, j) is `before[i] + j`.
    before = np.arange(kept) * kept - np.arange(kept) * (np.arange(kept) + 1) // 2
    total = np.zeros(kept * (kept + 1) // 2, dtype=np.int64)
    for few in _alike(owners, places, cells=2):
        rows, columns = np.triu_indices(few.shape[1])
        products = _products(scale[few], rows, columns)
        cells = before[few[:, rows]] + few[:, columns]
        np.add.at(total, cells.ravel(), _whole(products, units.each).ravel())
    return np.clip(total, -units.bound, units.bound)


def _distinct(
    starts: NDArray[np.int64], places: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each customer's different places in 0 .. size - 1, by customer and by place."""
    owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    known = (places >= 0) & (places < size)
    # A place that is there twice would make a coordinate of twice the size that is verified.
    keys = np.unique(owners[known] * size + places[known])
    return keys // size, keys % size


def _alike(owners: NDArray[np.int64], places: NDArray[np.int64], *, cells: int) -> Iterator[NDArray[np.int64]]:
    """Yield pieces of customers that have equally many places, each (customers, places).

    No row is filled up, so that nothing of a customer's sums follows from what others have.
    """
    _, begins, lengths = np.unique(owners, return_index=True, return_counts=True)
    for length in np.unique(lengths).tolist():
        most = max(1, _CELLS // length**cells)
        alike = begins[lengths == length]
        for start in range(0, len(alike), most):
            yield places[alike[start : start + most, None] + np.arange(length)]


def _products(scaled: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the upper triangles of z z', isometric, (customers, pairs), z being rows at unit length."""
    with np.errstate(all="ignore"):  # what is not finite is zeros in the end
        squares = torch.from_numpy(scaled * scaled)
        z = scaled / np.sqrt(tree_sum(squares, dim=1).numpy())[:, None]
        products: NDArray[np.float64] = z[:, rows] * z[:, columns]
        return products * np.where(rows == columns, 1.0, np.sqrt(2.0))


def _whole(vectors: NDArray[np.float64], sensitivity: int) -> NDArray[np.int64]:
    """Return vectors of norm 1 as whole numbers of norm at most the sensitivity; zeros for one that breaks it."""
    limit = greatest_norm(sensitivity, vectors.shape[1])
    with np.errstate(all="ignore"):
        rounded = np.rint(limit * vectors)
    # What is not finite or not in range has no whole number; a comparison with what is not a number is false.
    ranged: NDArray[np.bool_] = np.all(np.abs(rounded) <= sensitivity, axis=1, keepdims=True)
    whole = np.where(ranged, rounded, 0.0).astype(np.int64)
    kept = np.square(whole).sum(axis=1, keepdims=True) <= sensitivity**2
    return np.where(kept, whole, 0)
