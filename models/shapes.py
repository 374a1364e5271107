"""The explanation is the model: what each column adds to the log-odds, slot by slot, and how sure that is.

All of it follows from the published model and the public plan, and so costs no privacy. Contributions are centred: over
the noisy shares of customers each column's mean is 0, and the intercept takes the rest, so that what a customer's slots
contribute, with the intercept, is its score, exactly.

Two kinds of uncertainty stand beside each contribution and are not mixed. `noise` is what would differ if the same
customers were learned from once more, with other noise, if columns had nothing to do with each other; `noise_most` is
the same if other columns could make up for any change. The truth lies between them; `models/stepnoise.py` says how they
are found and what that leaves out. `sampling` is what would differ with other customers of the same kind, as if all
else were known: 1 / sqrt(n p (1 - p)) for the n customers in a slot. None is a bias: a slot with few customers is drawn
towards 0 besides.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.additive import along
from coterie.models.binning import GROUPS, BinnedColumn, Layout
from coterie.models.propensity import Weights
from coterie.models.stepnoise import Learning, information, noise_variance

__all__ = ["Explanation", "PairShape", "Point", "Shape", "centred", "explain", "shares_within"]

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One slot of a column.

    Args:
        kind: "bin" of a numeric column, "atom", "word", or "absent".
        label: What it holds, for a reader.
        low: Where a bin begins, itself inside; an atom's value; None for words and what is absent.
        high: Where a bin ends, the last one's inside; an atom's value.
        share: Noisy share of customers; may be below 0.
        contribution: To the log-odds, centred.
        noise: Standard deviation of it by the noise of learning, of columns that go with no other; None where that is
            not known.
        noise_most: The same where other columns could make up for any change.
        sampling: Standard deviation of it by which customers there were.
    """

    kind: str
    label: str
    low: float | None
    high: float | None
    share: float
    contribution: float
    noise: float | None
    noise_most: float | None
    sampling: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one column adds.

    Args:
        name: The column's.
        kind: "numeric" or "categorical".
        trend: 1 where it may only rise, -1 where it may only fall, 0 for neither.
        importance: Mean size of its contribution over the noisy shares of customers.
        points: Its slots: of numbers by ascending value (a bin stands before an atom inside it), "absent" last.
    """

    name: str
    kind: str
    trend: int
    importance: float
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class PairShape:
    """What two columns add together, beyond what each adds alone; not purified of what either could have taken.

    Args:
        names: Of the two columns.
        groups: What the groups of either hold, `GROUPS` texts each; empty for a group that holds nothing.
        importance: Mean size of its contribution over the noisy shares of customers.
        share: Product of the groups' noisy shares, shape (GROUPS, GROUPS).
        contribution: To the log-odds, centred, in the same shape.
        noise: Standard deviation by the noise of learning, likewise; None where that is not known.
        noise_most: The same where other columns could make up for any change.
        sampling: Standard deviation by which customers there were, likewise.
    """

    names: tuple[str, str]
    groups: tuple[tuple[str, ...], tuple[str, ...]]
    importance: float
    share: Doubles
    contribution: Doubles
    noise: Doubles | None
    noise_most: Doubles | None
    sampling: Doubles


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A model on bins, told whole.

    Args:
        intercept: Log-odds to which contributions are added: the mean over the noisy shares.
        shapes: Of the columns, the most important first.
        pairs: Likewise.
    """

    intercept: float
    shapes: tuple[Shape, ...]
    pairs: tuple[PairShape, ...]


def explain(parameters: Weights, layout: Layout, learning: Learning) -> Explanation:
    """Return what a published model of the families additive or logistic says, whole.

    Args:
        parameters: Of slots, (1, slots), and the intercept, (1,).
        layout: Bins with their noisy shares of customers.
        learning: How the weights were learned.
    """
    told, intercept = centred(parameters, layout)
    shares = shares_within(layout)
    spans = layout.binning.slot_spans()
    varied = np.array([shares[span] @ told[span] ** 2 for span in spans])
    spread = np.empty(len(told))
    for span, own in zip(spans, varied, strict=True):
        spread[span] = math.sqrt(max(0.0, float(varied.sum() - own)))
    curved, plain = information(intercept + told, spread, learning)
    held = np.maximum(layout.share * learning.customers, 1.0)  # who has the slot to itself counts as one customer
    apart = {"contribution": told, "sampling": 1.0 / np.sqrt(held * plain), "shares": shares}
    for name, height in (("noise", curved), ("noise_most", np.zeros(len(told)))):
        variance = noise_variance(layout, height, learning)
        if variance is not None:
            apart[name] = _centred_deviation(variance, shares, spans)
    columns = range(len(layout.binning.columns))
    shapes = [_shape(layout, index, apart) for index in columns]
    pairs = [_pair(layout, index, apart) for index in range(len(layout.binning.pairs))]
    return Explanation(
        intercept=intercept,
        shapes=tuple(sorted(shapes, key=lambda shape: -shape.importance)),
        pairs=tuple(sorted(pairs, key=lambda pair: -pair.importance)),
    )


def centred(parameters: Weights, layout: Layout) -> tuple[Doubles, float]:
    """Return every slot's contribution, shape (slots,), of mean 0 in each column and pair, and the intercept.

    Args:
        parameters: Of slots, (1, slots), and the intercept, (1,).
        layout: Bins with their noisy shares of customers.
    """
    told, intercept, shares = parameters[0][0].astype(np.float64), float(parameters[1][0]), shares_within(layout)
    for span in layout.binning.slot_spans():
        mean = float(shares[span] @ told[span])
        told[span] -= mean
        intercept += mean
    return told, intercept


def shares_within(layout: Layout) -> Doubles:
    """Return noisy shares that are not below 0 and add up to 1 in each column and pair, shape (slots,).

    Where the noise left nothing of a column, all of its slots weigh the same.
    """
    found = np.maximum(layout.share, 0.0)
    for span in layout.binning.slot_spans():
        whole = float(found[span].sum())
        found[span] = found[span] / whole if whole > 0 else 1.0 / (span.stop - span.start)
    return found


def _centred_deviation(variance: Doubles, shares: Doubles, spans: list[slice]) -> Doubles:
    """Return the deviation of weights less their column's mean, for independent weights."""
    found = np.empty(len(variance))
    for span in spans:
        own, part = variance[span], shares[span]
        found[span] = (1.0 - 2.0 * part) * own + part**2 @ own
    return np.sqrt(np.maximum(found, 0.0))


def _shape(layout: Layout, index: int, apart: dict[str, Doubles]) -> Shape:
    column, span = layout.binning.columns[index], layout.binning.slot_spans()[index]
    spots = _words(column, span) if column.words else _numbers(column, layout, index)
    absent = span.stop - 1
    spots.append((absent, "absent", "absent", None, None))
    points = tuple(
        Point(
            kind=kind,
            label=label,
            low=low,
            high=high,
            share=float(layout.share[slot]),
            contribution=float(apart["contribution"][slot]),
            noise=float(apart["noise"][slot]) if "noise" in apart else None,
            noise_most=float(apart["noise_most"][slot]) if "noise_most" in apart else None,
            sampling=float(apart["sampling"][slot]),
        )
        for slot, kind, label, low, high in spots
    )
    return Shape(
        name=column.name,
        kind="categorical" if column.words else "numeric",
        trend=column.trend,
        importance=_importance(apart, span),
        points=points,
    )


Spot = tuple[int, str, str, float | None, float | None]


def _words(column: BinnedColumn, span: slice) -> list[Spot]:
    return [(span.start + place, "word", word, None, None) for place, word in enumerate(column.words)]


def _numbers(column: BinnedColumn, layout: Layout, index: int) -> list[Spot]:
    """Return a numeric column's slots by ascending value: atoms by theirs, bins from their first cell to their last."""
    span = layout.binning.cell_spans()[index]
    slots = layout.slot[span.start : span.stop - 1]
    begins, ends = column.begins, (*column.atoms, *column.edges, column.high)
    found: list[Spot] = []
    for slot in (slot for group in along(layout, index) for slot in group):
        cells = np.flatnonzero(slots == slot)
        low, high = begins[cells[0]], ends[cells[-1]]
        if cells[0] < len(column.atoms):
            found.append((slot, "atom", _figure(low), low, high))
        else:
            found.append((slot, "bin", _between(low, high), low, high))
    return found


def _pair(layout: Layout, index: int, apart: dict[str, Doubles]) -> PairShape:
    binning = layout.binning
    one, two = (binning.columns[side] for side in binning.pairs[index])
    span = binning.slot_spans()[len(binning.columns) + index]
    square = (GROUPS, GROUPS)
    first, second = layout.coarse[index]
    return PairShape(
        names=(one.name, two.name),
        groups=(_group_labels(one, first), _group_labels(two, second)),
        importance=_importance(apart, span),
        share=layout.share[span].reshape(square),
        contribution=apart["contribution"][span].reshape(square),
        noise=apart["noise"][span].reshape(square) if "noise" in apart else None,
        noise_most=apart["noise_most"][span].reshape(square) if "noise_most" in apart else None,
        sampling=apart["sampling"][span].reshape(square),
    )


def _group_labels(column: BinnedColumn, groups: NDArray[np.int64]) -> tuple[str, ...]:
    """Return what each coarse group of a column's cells holds."""
    found = []
    for group in range(GROUPS - 1):
        cells = np.flatnonzero(groups[:-1] == group)
        if not len(cells):
            found.append("")
        elif column.words:
            found.append(", ".join(column.words[cell] for cell in cells))
        else:
            ends = (*column.atoms, *column.edges, column.high)
            low, high = min(column.begins[cell] for cell in cells), max(ends[cell] for cell in cells)
            found.append(_figure(low) if low == high else _between(low, high))
    return (*found, "absent")


def _importance(apart: dict[str, Doubles], span: slice) -> float:
    return float(apart["shares"][span] @ np.abs(apart["contribution"][span]))


def _between(low: float, high: float) -> str:
    if math.isinf(low):
        return f"below {_figure(high)}"
    return f"from {_figure(low)}" if math.isinf(high) else f"{_figure(low)} to {_figure(high)}"


def _figure(value: float) -> str:
    """Write a number for a reader, to three significant digits where it is no whole one below 10,000."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 10_000 else f"{float(f'{value:.3g}'):,.10g}"
