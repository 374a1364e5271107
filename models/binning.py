"""Private bins: from fine public cells, by noisy counts of them, to the slots that a model has weights for.

Cells are public: cut by bounds, edges, atoms and vocabularies that were written down before any table was seen. The one
thing that data decide is how many customers are in each, and that is known with noise that was paid for. All of the
following is made of it, at no further cost.

A column's cells, in order     its atoms, its fine cells, "absent"; or its words, "absent"
A column's slots, in order     its atoms, its bins, "absent"; or its words, "absent"
A pair's slots                 every combination of two coarse groups

Every row is in exactly one cell of every column, and in one slot of every column and every pair.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUPS", "BinnedColumn", "Binning", "Layout", "cells_of", "layout_of", "one_hot", "slots_of"]

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

GROUPS = 7
"""Coarse groups of either column of a pair, of which the last is for what is absent."""


@dataclass(frozen=True)
class BinnedColumn:
    """One column.

    Args:
        name: Its name.
        atoms: Values of a numeric column that have a cell each, ascending.
        edges: Inner edges of a numeric column's fine cells, ascending; a cell is [edge, next edge).
        words: The vocabulary of a categorical column; empty for a numeric one.
        trend: 1 where the score never falls along it, -1 where it never rises, 0 for neither.
        low: The least value of a numeric column; what lies below was clipped to it.
        high: The greatest value; likewise.
    """

    name: str
    atoms: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    trend: int = 0
    low: float = -math.inf
    high: float = math.inf

    @property
    def begins(self) -> tuple[float, ...]:
        """Where a numeric column's atoms and fine cells begin; among equals, an atom comes before its cell."""
        return (*self.atoms, self.low, *self.edges)

    @property
    def cells(self) -> int:
        """How many cells it has."""
        return len(self.words) + 1 if self.words else len(self.atoms) + len(self.edges) + 2

    def slots(self, most: int) -> int:
        """Return how many slots it has, of which some may stay empty."""
        return len(self.words) + 1 if self.words else len(self.atoms) + min(most, len(self.edges) + 1) + 1


@dataclass(frozen=True)
class Binning:
    """The public part of private bins.

    Args:
        columns: In order.
        most: Most bins of a numeric column.
        pairs: Interactions, as positions of two columns each.
    """

    columns: tuple[BinnedColumn, ...]
    most: int
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def cells(self) -> int:
        """Cells of all columns."""
        return sum(column.cells for column in self.columns)

    @property
    def slots(self) -> int:
        """Slots of all columns and pairs."""
        return sum(column.slots(self.most) for column in self.columns) + GROUPS**2 * len(self.pairs)

    @property
    def active(self) -> int:
        """Slots that a row is in."""
        return len(self.columns) + len(self.pairs)

    def cell_spans(self) -> list[slice]:
        """Return where each column's cells are."""
        return _spans([column.cells for column in self.columns])

    def slot_spans(self) -> list[slice]:
        """Return where each column's slots are, then each pair's."""
        return _spans([column.slots(self.most) for column in self.columns] + [GROUPS**2] * len(self.pairs))


@dataclass(frozen=True)
class Layout:
    """Bins as the noisy counts made them.

    Args:
        binning: The public part.
        slot: Of every cell, shape (cells,).
        share: Noisy share of customers in every slot, shape (slots,); of pairs, the product of their groups' shares.
        coarse: Of every pair, the groups of the first column's cells and of the second's.
    """

    binning: Binning
    slot: Places
    share: Numbers
    coarse: tuple[tuple[Places, Places], ...]


def cells_of(binning: Binning, columns: Mapping[str, Numbers]) -> Places:
    """Return the cells that rows are in, counted through all columns.

    Args:
        binning: Public.
        columns: For each column's name an array of shape (rows,): numbers (NaN where missing), or indices of words
            (-1 where there is none).

    Returns:
        Shape (rows, columns).
    """
    rows = len(columns[binning.columns[0].name])
    found = np.empty((rows, len(binning.columns)), dtype=np.int64)
    for index, (column, span) in enumerate(zip(binning.columns, binning.cell_spans(), strict=True)):
        values = columns[column.name]
        found[:, index] = span.start + (_word_cells if column.words else _number_cells)(column, values)
    return found


def layout_of(binning: Binning, counts: NDArray[np.float32]) -> Layout:
    """Return the bins that noisy counts lead to.

    Args:
        binning: Public.
        counts: Noisy share of customers in every cell, shape (cells,); may be below 0.
    """
    return _layout(binning, counts.astype(np.float32).tobytes())


@functools.lru_cache(maxsize=8)
def _layout(binning: Binning, counts: bytes) -> Layout:
    """Return the bins, which every step of a study asks for again."""
    share = np.frombuffer(counts, dtype=np.float32).astype(np.float64)
    slot = np.empty(binning.cells, dtype=np.int64)
    for column, cells, slots in zip(binning.columns, binning.cell_spans(), binning.slot_spans(), strict=False):
        slot[cells] = slots.start + _column_slots(column, share[cells], binning.most)
    spans = binning.cell_spans()
    groups = [_groups(column, share[cells]) for column, cells in zip(binning.columns, spans, strict=True)]
    held = np.zeros(binning.slots)
    np.add.at(held, slot, share)
    for (one, two), at in zip(binning.pairs, binning.slot_spans()[len(binning.columns) :], strict=True):
        sides = [np.bincount(groups[side], weights=share[spans[side]], minlength=GROUPS) for side in (one, two)]
        held[at] = np.outer(*(np.maximum(side, 0.0) for side in sides)).ravel()
    for array in (slot, held, *groups):
        array.flags.writeable = False
    return Layout(binning, slot, held, tuple((groups[one], groups[two]) for one, two in binning.pairs))


def slots_of(layout: Layout, cells: Places) -> Places:
    """Return the slots that rows are in, shape (rows, columns + pairs), from `cells_of`."""
    binning = layout.binning
    columns = len(binning.columns)
    found = np.empty((len(cells), binning.active), dtype=np.int64)
    found[:, :columns] = layout.slot[cells]
    starts, spans = binning.cell_spans(), binning.slot_spans()
    for index, ((one, two), (first, second)) in enumerate(zip(binning.pairs, layout.coarse, strict=True)):
        group = first[cells[:, one] - starts[one].start] * GROUPS + second[cells[:, two] - starts[two].start]
        found[:, columns + index] = spans[columns + index].start + group
    return found


def one_hot(slots: Places, width: int) -> NDArray[np.float32]:
    """Return slots as a matrix of indicators, shape (rows, width)."""
    matrix = np.zeros((len(slots), width), dtype=np.float32)
    np.put_along_axis(matrix, slots, 1.0, axis=1)
    return matrix


def _spans(widths: list[int]) -> list[slice]:
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]


def _word_cells(column: BinnedColumn, values: Numbers) -> Places:
    codes = values.astype(np.int64)
    return np.where(codes < 0, len(column.words), codes)


def _number_cells(column: BinnedColumn, values: Numbers) -> Places:
    codes = len(column.atoms) + np.searchsorted(column.edges, values, side="right")
    for index, atom in enumerate(column.atoms):
        codes[values == atom] = index
    codes[np.isnan(values)] = column.cells - 1
    return np.asarray(codes, dtype=np.int64)


def _column_slots(column: BinnedColumn, share: Numbers, most: int) -> Places:
    """Return the slots of a column's cells, counted from 0; bins that are fewer than they might be leave some empty."""
    if column.words:
        return np.arange(column.cells)
    atoms = len(column.atoms)
    bins = atoms + _joined(share[atoms:-1], most)
    return np.concatenate([np.arange(atoms), bins, [column.slots(most) - 1]])


def _groups(column: BinnedColumn, share: Numbers) -> Places:
    """Return the coarse groups of a column's cells: neighbours together, or every word that is not frequent."""
    if column.words:
        found = np.full(column.cells, GROUPS - 2)
        frequent = np.argsort(-share[:-1], kind="stable")[: GROUPS - 2]
        found[np.sort(frequent)] = np.arange(len(frequent))
    else:
        # Atoms stand among the cells by their value; a cell stands where it begins.
        order = np.argsort(column.begins, kind="stable")
        found = np.empty(column.cells, dtype=np.int64)
        found[order] = _joined(share[order], GROUPS - 1)
    found[-1] = GROUPS - 1
    return found


def _joined(share: Numbers, most: int) -> Places:
    """Join the two neighbours that have least together until `most` are left; return each one's group."""
    kept, begins = share.copy(), np.arange(len(share))
    while len(kept) > most:
        least = int(np.argmin(kept[:-1] + kept[1:]))
        kept[least] += kept[least + 1]
        kept, begins = np.delete(kept, least + 1), np.delete(begins, least + 1)
    return np.searchsorted(begins, np.arange(len(share)), side="right") - 1
