"""One sweep of alternating least squares as a sum over customers in whole numbers.

The published factors h_i of the kept items say what a customer's own vector u is: of weighted least squares with a 1
for each of its n items and a 0, of less weight, for all others (Hu, Koren and Volinsky 2008, "Collaborative Filtering
for Implicit Feedback Datasets", eq. 4), and with a ridge that grows with the weight (Rendle et al. 2021, "Revisiting
the Performance of iALS"):

    (sum over own items of h h' + unobserved G + ridge (n + unobserved kept) I) u = sum over own items of h
    G = sum over all kept items of h h'

u never leaves the customer's partner. What is summed is what the items' least squares need in turn:

    for each own item   curvature u u'  and  u
    once                whole u u'

where u u' is its upper triangle, off the diagonal times sqrt(2): an isometry, so that its length is |u|^2 and that of
everything together is sqrt(n (curvature^2 |u|^4 + |u|^2) + whole^2 |u|^4). It is brought to unit length, or cut to a
clip. One factor for the whole vector leaves a customer's part of the problem what it is, with a smaller weight.

Only + - * / and square roots are used, elementwise, and trees of sums whose order follows from a customer's own number
of items (`rowwise.py` says why). Noise is no matter of this module.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.privacy.secagg.numbers import greatest_norm
from coterie.privacy.training.historysums import Units
from coterie.privacy.training.rowwise import tree_sum

__all__ = ["AlsSettings", "als_total", "solved"]

_CELLS = 2**20
"""Numbers that a piece of customers may hold."""


@dataclass(frozen=True, kw_only=True)
class AlsSettings:
    """What a sweep's sum is; all public.

    Args:
        longest: Items of a customer that count: so many of its last ones.
        unobserved: Weight of an item that a customer does not have, above 0.
        ridge: Ridge of a customer's vector for each unit of weight, above 0.
        curvature: What the products of an own item are multiplied by, above 0.
        whole: What the products that are there once are multiplied by, above 0.
        clip: Greatest norm of a customer's vector, which D units stand for; 0 for bringing it to unit length.

    Raises:
        ValueError: A number is out of range.
    """

    longest: int
    unobserved: float
    ridge: float
    curvature: float
    whole: float
    clip: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        above = (self.longest, self.unobserved, self.ridge, self.curvature, self.whole)
        if not all(math.isfinite(one) and one > 0 for one in above) or not 0 <= self.clip < math.inf:
            raise ValueError("a setting of the sweep is not a number above 0, or the clip is below 0")


def als_total(
    starts: NDArray[np.int64],
    items: NDArray[np.int64],
    *,
    position: NDArray[np.int64],
    factors: NDArray[np.float32],
    settings: AlsSettings,
    units: Units,
) -> NDArray[np.int64]:
    """Sum what customers' own vectors say about the items.

    Args:
        starts: Where each customer's items begin and the last one's end, shape (customers + 1,). Private.
        items: Positions in the catalogue, shape (interactions,), oldest first; what is outside it or there twice
            counts for nothing more. Private.
        position: Place of each of the catalogue's items among the kept ones, or -1, shape (items,).
        factors: Published factors of the kept items, (kept, d).
        settings: Public.
        units: Of the total.

    Returns:
        Shape (kept * (d (d + 1) / 2 + d) + d (d + 1) / 2,): the items' products, triangle after triangle; the items'
        vectors; the products that are there once.

    Raises:
        ValueError: The sensitivity leaves no room for rounding so many coordinates.

    Guarantees:
        Adding or removing one customer changes the total by a vector of whole numbers of L2 norm at most D // k,
        exactly, whatever the factors are: a customer's vector follows from its own items alone, and it is verified in
        whole numbers. One that breaks the norm, or is not finite, is zeros.

    Leaks:
        The total has no noise: it is for masking together with the partner's share of noise, and for nothing else.
    """
    kept, size = factors.shape
    cells = size * (size + 1) // 2
    limit = greatest_norm(units.each, settings.longest * (cells + size) + cells)  # refused by public numbers alone
    scale = units.sensitivity / settings.clip if settings.clip > 0 else math.inf
    table = _table(factors)
    rows, columns = np.triu_indices(size)
    spread = torch.from_numpy(np.where(rows == columns, 1.0, math.sqrt(2.0)))
    # Fillers add to a row too many, which is dropped.
    own = torch.zeros((kept + 1, cells + size), dtype=torch.int64)
    once = torch.zeros(cells, dtype=torch.int64)
    for few, lengths in _pieces(_last(starts, items, position, settings.longest), kept, cells + size):
        vectors = _vectors(few, lengths, table, settings)
        products = vectors[:, rows] * vectors[:, columns] * spread
        parts = (settings.curvature * products, vectors, settings.whole * products)
        own_units, once_units = _whole(parts, lengths, scale, limit=limit, most=units.each)
        width = few.shape[1]
        own.index_add_(0, few.reshape(-1), own_units[:, None].expand(-1, width, -1).reshape(-1, cells + size))
        once += once_units.sum(dim=0)
    total = torch.cat([own[:kept, :cells].reshape(-1), own[:kept, cells:].reshape(-1), once])
    whole: NDArray[np.int64] = total.clamp(-units.bound, units.bound).numpy()
    return whole


def solved(matrices: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve systems side by side by elimination, no system's numbers meeting another's.

    Args:
        matrices: Symmetric and positive definite, so that no pivot wants choosing, float64, (systems, d, d).
        right: float64, (systems, d).

    Returns:
        Solutions, (systems, d); not finite where a matrix is not as it should be.
    """
    left, right = matrices.clone(), right.clone()
    size = right.shape[1]
    for j in range(size):
        ratio = left[:, j + 1 :, j] / left[:, j, j, None]
        left[:, j + 1 :, j + 1 :] -= ratio[:, :, None] * left[:, j, None, j + 1 :]
        right[:, j + 1 :] -= ratio * right[:, j, None]
    for j in range(size - 1, -1, -1):
        right[:, j] /= left[:, j, j]
        right[:, :j] -= left[:, :j, j] * right[:, j, None]
    return right


def _table(factors: NDArray[np.float32]) -> torch.Tensor:
    """Return every kept item's products and factors, and a row of zeros, (kept + 1, d (d + 1) / 2 + d)."""
    values = torch.from_numpy(np.concatenate([factors, np.zeros_like(factors[:1])]).astype(np.float64))
    rows, columns = np.triu_indices(factors.shape[1])
    return torch.cat([values[:, rows] * values[:, columns], values], dim=1)


def _last(
    starts: NDArray[np.int64], items: NDArray[np.int64], position: NDArray[np.int64], longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each customer's different kept items, of its last ones: whose, and which, by customer and by item."""
    owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    known = (np.arange(len(items)) >= starts[1:][owners] - longest) & (items >= 0) & (items < len(position))
    owners, places = owners[known], position[items[known]]
    # An item that is there twice would be added twice, and verified once.
    keys = np.sort(owners[places >= 0] * len(position) + places[places >= 0])
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return keys // len(position), keys % len(position)


def _pieces(
    last: tuple[NDArray[np.int64], NDArray[np.int64]], filler: int, cells: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield pieces of customers, filled up to the next power of two of their own number of items, and these numbers."""
    owners, places = last
    _, begins, lengths = np.unique(owners, return_index=True, return_counts=True)
    powers = 2 ** np.arange(63)
    widths = powers[np.searchsorted(powers, lengths)]
    for width in np.unique(widths).tolist():
        size = max(1, _CELLS // (width * cells))
        alike = np.flatnonzero(widths == width)
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            place = np.arange(width)
            there = place < lengths[some][:, None]
            few = np.where(there, places[np.where(there, begins[some][:, None] + place, 0)], filler)
            yield torch.from_numpy(few), torch.from_numpy(lengths[some])


def _vectors(few: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor, settings: AlsSettings) -> torch.Tensor:
    """Return customers' own vectors, (customers, d)."""
    size = int((math.sqrt(8 * table.shape[1] + 9) - 3) / 2)  # of size (size + 1) / 2 + size columns
    cells = table.shape[1] - size
    sums = tree_sum(table[few], dim=1)
    known = sums[:, :cells] + settings.unobserved * tree_sum(table[:, :cells], dim=0)
    rows, columns = np.triu_indices(size)
    matrices = torch.empty((len(few), size, size), dtype=torch.float64)
    matrices[:, rows, columns] = known
    matrices[:, columns, rows] = known
    ridge = settings.ridge * (lengths.double() + settings.unobserved * (len(table) - 1))
    diagonal = np.arange(size)
    matrices[:, diagonal, diagonal] += ridge[:, None]
    return solved(matrices, sums[:, cells:])


def _whole(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    lengths: torch.Tensor,
    scale: float,
    *,
    limit: float,
    most: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what customers add for each own item, and once, as whole numbers; zeros where the norm is above `most`."""
    products, vectors, once = parts
    each = torch.cat([products, vectors], dim=1)
    squares = lengths * tree_sum(each * each, dim=1) + tree_sum(once * once, dim=1)
    factor = (limit / torch.sqrt(squares)).clamp(max=scale)
    rounded = torch.cat([each, once], dim=1).mul(factor[:, None]).round()
    # What is not finite or not in range has no whole number; a comparison with what is not a number is false.
    ranged = (rounded.abs() <= most).all(dim=1)
    whole = torch.where(ranged[:, None], rounded, 0.0).to(torch.int64)
    own, alone = whole[:, : each.shape[1]], whole[:, each.shape[1] :]
    kept = (lengths * own.square().sum(dim=1) + alone.square().sum(dim=1) <= most**2)[:, None]
    return own * kept, alone * kept
