"""The additive family: one weight for each slot of every column, and their sum is the log-odds.

What a column adds is a step function of it that can be drawn: the explanation is the model. The logistic family on bins
has the same weights, and so the same scores.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.models.binning import Layout
from coterie.models.propensity import Weights

__all__ = ["along", "curvature", "margins", "ordered", "ridged", "settled"]

Doubles = NDArray[np.float64]
_STEEPEST = 0.25  # p (1 - p) is at most that (Boehning and Lindsay 1988): a step is never longer than Newton's


def margins(weights: Weights, slots: NDArray[np.int64]) -> Doubles:
    """Return log-odds, shape (rows,).

    Args:
        weights: Of slots, (1, slots), and the intercept, (1,).
        slots: That rows are in, shape (rows, columns + pairs).

    Guarantees:
        A row's log-odds are the same, bit for bit, whatever other rows are there: each addition is of two numbers.
    """
    flat, (start,) = weights[0][0].astype(np.float64), weights[1].astype(np.float64)
    found = np.full(len(slots), start)
    for column in range(slots.shape[1]):
        found += flat[slots[:, column]]
    return found


def curvature(layout: Layout, *, ridge: float, damping: float) -> tuple[Doubles, Doubles]:
    """Return what a mean gradient is divided by, in the shapes of the weights: diagonal Newton from private counts.

    Args:
        layout: With noisy shares of customers.
        ridge: Of the penalty, over the customers.
        damping: Added for the noise of the gradient, over the customers: where a slot has few customers, a step along
            nothing but noise would be a long one.
    """
    held = np.maximum(layout.share, 0.0)
    return (_STEEPEST * held + ridge + damping)[None, :], np.array([_STEEPEST + damping])


def ridged(weights: Weights, gradient: list[Doubles], *, ridge: float) -> list[Doubles]:
    """Return a mean gradient with that of the ridge penalty on slots; the intercept has none."""
    slots, start = gradient
    return [slots + ridge * weights[0].astype(np.float64), start]


def settled(weights: Weights, layout: Layout, *, noise: float) -> Weights:
    """Return weights of which those that hardly anybody's data made are their column's mean; trends are kept.

    The weight of a word, an atom, or of what is missing is noise alone where few customers have it. No figure of many
    customers shows that, and the one customer who has it would be judged by it. So a slot of one cell whose noisy count
    is below one deviation of the noise says nothing of its own. Bins of several cells are left as they are: their
    counts have the noise of all their cells, and a rare value may well say much.

    Args:
        weights: Of slots, (1, slots), and the intercept, (1,).
        layout: With noisy shares of customers.
        noise: Standard deviation of each cell's noisy share.
    """
    binning = layout.binning
    cells, slots = np.bincount(layout.slot, minlength=binning.slots), weights[0].astype(np.float64).copy()
    few = (cells == 1) & (layout.share < noise)
    for span in binning.slot_spans()[: len(binning.columns)]:
        held = np.where(few[span], 0.0, np.maximum(layout.share[span], 0.0))
        if held.any():
            slots[0, span] = np.where(few[span], float(held @ slots[0, span]) / held.sum(), slots[0, span])
    return ordered((slots.astype(np.float32), weights[1]), layout)


def ordered(weights: Weights, layout: Layout) -> Weights:
    """Return the nearest weights of which every column that has a trend keeps it.

    Along a column with a trend the weights of its atoms and bins are replaced by their isotonic regression, weighted by
    counts (pool adjacent violators; Barlow et al. 1972, chapter 1.2); an atom inside a bin has the bin's weight.
    Averages of such weights keep the trend.
    """
    columns = layout.binning.columns
    if not any(column.trend for column in columns):
        return weights
    slots, heavy = weights[0].astype(np.float64).copy(), np.maximum(layout.share, 1e-9)
    for index, column in enumerate(columns):
        if column.trend:
            groups = along(layout, index)
            means = np.array([np.average(slots[0, group], weights=heavy[group]) for group in groups])
            fitted = column.trend * _isotonic(column.trend * means, np.array([heavy[group].sum() for group in groups]))
            for group, value in zip(groups, fitted.tolist(), strict=True):
                slots[0, group] = value
    return slots.astype(np.float32), weights[1]


def along(layout: Layout, index: int) -> list[list[int]]:
    """Return a numeric column's slots by ascending value, without those that are empty or absent.

    A bin has values on either side of an atom inside it: the two stand together, the bin first, and have one place in
    a trend.
    """
    column, span = layout.binning.columns[index], layout.binning.cell_spans()[index]
    slots = layout.slot[span.start : span.stop - 1].tolist()
    loose = dict(zip(slots, column.atoms, strict=False))
    begins, ends, bins = (column.low, *column.edges), (*column.edges, column.high), slots[len(column.atoms) :]
    groups = []
    for one in sorted(set(bins)):
        mine = [place for place, bin_ in enumerate(bins) if bin_ == one]
        begin, end = begins[mine[0]], ends[mine[-1]]
        inside = [slot for slot, atom in loose.items() if begin < atom < end]
        groups.append((begin, end, [one, *inside]))
    tied = {slot for _, _, group in groups for slot in group}
    groups += [(atom, atom, [slot]) for slot, atom in loose.items() if slot not in tied]
    return [group for _, _, group in sorted(groups)]


def _isotonic(values: Doubles, heavy: Doubles) -> Doubles:
    """Return the ascending sequence nearest to `values` in squares weighted by `heavy`."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), heavy.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, mass, many = blocks.pop()
            mean = (before * mass + mean * total) / (mass + total)
            total, count = total + mass, count + many
        blocks.append((mean, total, count))
    return np.concatenate([np.full(count, mean) for mean, _, count in blocks])
