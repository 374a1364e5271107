"""Private bins: every row has one cell and one slot in every column, and slots follow from the noisy counts alone."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.models.binning import GROUPS, BinnedColumn, Binning, cells_of, layout_of, one_hot, slots_of

AGE = BinnedColumn("age", edges=(20.0, 30.0, 40.0), low=10.0, high=60.0)
GAIN = BinnedColumn("gain", atoms=(0.0, 35.0), edges=(10.0, 100.0, 1000.0), low=0.0, high=5000.0)
AREA = BinnedColumn("area", words=("city", "town", "land"))
TRADE = BinnedColumn("trade", words=tuple(f"trade {number}" for number in range(9)))
BINNING = Binning((AGE, GAIN, AREA, TRADE), 3, ((0, 3), (1, 2)))


def own_cell(column, value):
    """The cell of a value within its column, one comparison at a time."""
    if column.words:
        return len(column.words) if value < 0 else int(value)
    if math.isnan(value):
        return len(column.atoms) + len(column.edges) + 1
    for place, atom in enumerate(column.atoms):
        if value == atom:
            return place
    place = 0
    while place < len(column.edges) and column.edges[place] <= value:
        place += 1
    return len(column.atoms) + place


def own_cells(binning, rows):
    """The same through all columns."""
    found = []
    for row in rows:
        start, mine = 0, []
        for column, value in zip(binning.columns, row, strict=True):
            mine.append(start + own_cell(column, value))
            start += column.cells
        found.append(mine)
    return found


def own_groups(counts, most):
    """The group of each of some neighbours: lists of lists, of which the two lightest neighbours become one."""
    groups = [[place] for place in range(len(counts))]
    while len(groups) > most:
        sums = [sum(Fraction(float(counts[place])) for place in group) for group in groups]
        pairs = [one + two for one, two in itertools.pairwise(sums)]
        first = pairs.index(min(pairs))
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
    return [next(number for number, group in enumerate(groups) if place in group) for place in range(len(counts))]


def table(rows):
    """Rows as columns."""
    return {
        column.name: np.array([row[place] for row in rows], dtype=np.float64)
        for place, column in enumerate(BINNING.columns)
    }


def values_of(column):
    """Values on, between and beyond everything that a numeric column is cut by; indices of words for another."""
    if column.words:
        return st.integers(-1, len(column.words) - 1).map(float)
    marks = [column.low, column.high, *column.atoms, *column.edges]
    near = [math.nextafter(mark, way) for mark in marks for way in (-math.inf, math.inf)]
    return st.one_of(st.sampled_from([*marks, *near, math.nan]), st.floats(-1e13, 1e13))


ROWS = st.lists(st.tuples(*(values_of(column) for column in BINNING.columns)), min_size=1, max_size=12)
WHOLE = st.integers(-40, 40)  # exact in every order of additions
COUNTS = st.lists(WHOLE, min_size=BINNING.cells, max_size=BINNING.cells).map(lambda c: np.array(c, np.float32))


def one_column(counts, most, **changes):
    """The slots of the fine cells of one column with so many, and the layout."""
    edges = tuple(float(edge) for edge in range(1, len(counts)))
    binning = Binning((BinnedColumn("x", edges=edges, **changes),), most)
    atoms = len(binning.columns[0].atoms)
    layout = layout_of(binning, np.array([*[0.0] * atoms, *counts, 0.0], np.float32))
    return (layout.slot[atoms:-1] - atoms).tolist(), layout


# --- cells --------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(ROWS)
def test_every_row_is_in_the_cells_that_comparing_one_value_at_a_time_finds(rows):
    assert cells_of(BINNING, table(rows)).tolist() == own_cells(BINNING, rows)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.0, 0),
        (-0.0, 0),
        (35.0, 1),
        (math.nextafter(0.0, 1.0), 2),
        (math.nextafter(10.0, 0.0), 2),
        (10.0, 3),
        (math.nextafter(35.0, 0.0), 3),
        (100.0, 4),
        (1000.0, 5),
        (5000.0, 5),
        (math.nan, 6),
    ],
)
def test_atoms_edges_bounds_and_missing_values_of_a_number_have_their_cells(value, cell):
    assert cells_of(Binning((GAIN,), 3), {"gain": np.array([value])}).tolist() == [[cell]]


def test_a_word_that_is_none_has_the_last_cell_of_its_column():
    found = cells_of(Binning((AREA,), 3), {"area": np.array([0.0, 2.0, -1.0])})
    assert found.tolist() == [[0], [2], [3]]


def test_a_column_that_is_missing_everywhere_is_one_cell_and_no_rows_are_no_cells():
    absent = cells_of(Binning((AGE, AREA), 3), {"age": np.full(4, np.nan), "area": np.full(4, -1.0)})
    assert absent.tolist() == [[4, 8]] * 4
    assert cells_of(Binning((AGE,), 3), {"age": np.empty(0)}).shape == (0, 1)


def test_cells_and_slots_are_counted_by_hand():
    assert [column.cells for column in BINNING.columns] == [5, 7, 4, 10]
    assert [column.slots(3) for column in BINNING.columns] == [4, 6, 4, 10]
    assert (BINNING.cells, BINNING.slots, BINNING.active) == (26, 24 + 2 * 49, 6)


# --- slots --------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(ROWS, COUNTS)
def test_every_row_is_in_one_slot_of_every_column_and_pair(rows, counts):
    layout = layout_of(BINNING, counts)
    slots = slots_of(layout, cells_of(BINNING, table(rows)))
    assert slots.shape == (len(rows), BINNING.active)
    for place, span in enumerate(BINNING.slot_spans()):
        assert ((span.start <= slots[:, place]) & (slots[:, place] < span.stop)).all()
    matrix = one_hot(slots, BINNING.slots)
    assert set(np.unique(matrix)) <= {0.0, 1.0}
    for span in BINNING.slot_spans():
        assert (matrix[:, span].sum(axis=1) == 1).all()


@settings(deadline=None)
@given(COUNTS)
def test_atoms_words_and_what_is_absent_keep_slots_of_their_own_whatever_was_counted(counts):
    layout = layout_of(BINNING, counts)
    for column, cells, slots in zip(BINNING.columns, BINNING.cell_spans(), BINNING.slot_spans(), strict=False):
        own = (layout.slot[cells] - slots.start).tolist()
        kept = len(column.words) or len(column.atoms)
        assert own[:kept] == list(range(kept))
        assert own[-1] == column.slots(BINNING.most) - 1
        assert own.count(own[-1]) == 1
        fine = own[kept:-1]
        assert fine == sorted(fine)
        assert all(kept <= slot < own[-1] for slot in fine)


@settings(deadline=None)
@given(st.lists(WHOLE, min_size=1, max_size=14), st.integers(2, 8))
def test_the_lightest_neighbours_are_joined_until_so_many_are_left(counts, most):
    found, layout = one_column(counts, most)
    assert found == own_groups(counts, most)
    assert len(set(found)) == min(most, len(counts))
    sums = [
        sum(count for count, group in zip(counts, found, strict=True) if group == one) for one in sorted(set(found))
    ]
    assert layout.share[: len(sums)].tolist() == sums


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=6, max_size=14), st.integers(3, 6), st.data())
def test_a_cell_that_outweighs_all_others_together_stays_alone(counts, most, data):
    heavy = data.draw(st.integers(0, len(counts) - 1))
    counts[heavy] = sum(counts) + 1
    found, _ = one_column(counts, most)
    assert found.count(found[heavy]) == 1


def test_counts_that_are_all_zero_still_make_as_many_bins():
    found, layout = one_column([0.0] * 10, 4)
    assert found == own_groups([0] * 10, 4)
    assert len(set(found)) == 4
    assert not layout.share.any()


def test_one_customer_is_in_a_bin_of_its_own():
    found, layout = one_column([0, 0, 0, 0, 1, 0, 0, 0], 3)
    assert found.count(found[4]) < 8
    assert layout.share.sum() == 1
    assert layout.share[found[4]] == 1


def test_counts_below_zero_are_joined_first():
    found, _ = one_column([5, 5, -30, 2, 5, 5], 5)
    assert found[2] == found[3]
    assert len(set(found)) == 5


def test_fewer_cells_than_bins_leave_each_alone_and_no_slot_over():
    found, layout = one_column([3, 1, 2], 24)
    assert found == [0, 1, 2]
    assert len(layout.share) == 4


@settings(deadline=None)
@given(COUNTS)
def test_equal_counts_lead_to_the_same_bins_and_are_left_as_they_were(counts):
    before = counts.copy()
    one, other = layout_of(BINNING, counts), layout_of(BINNING, counts.copy())
    assert one.slot.tolist() == other.slot.tolist()
    assert one.share.tobytes() == other.share.tobytes()
    for mine, theirs in zip(one.coarse, other.coarse, strict=True):
        assert [side.tolist() for side in mine] == [side.tolist() for side in theirs]
    assert counts.tobytes() == before.tobytes()


# --- pairs --------------------------------------------------------------------------------------------------


def own_coarse(column, counts):
    """The coarse group of each cell of a column: frequent words, or neighbours by value; last what is absent."""
    if column.words:
        frequent = sorted(sorted(range(len(counts) - 1), key=lambda place: -counts[place])[: GROUPS - 2])
        others = [frequent.index(place) if place in frequent else GROUPS - 2 for place in range(len(counts) - 1)]
        return [*others, GROUPS - 1]
    begins = [*column.atoms, column.low, *column.edges]
    order = sorted(range(len(begins)), key=lambda place: begins[place])
    groups = own_groups([counts[place] for place in order], GROUPS - 1)
    return [*(groups[order.index(place)] for place in range(len(begins))), GROUPS - 1]


@settings(deadline=None)
@given(ROWS, COUNTS)
def test_a_pair_s_slot_is_the_combination_of_its_columns_coarse_groups(rows, counts):
    layout = layout_of(BINNING, counts)
    cells = own_cells(BINNING, rows)
    slots = slots_of(layout, np.array(cells))
    spans = BINNING.cell_spans()
    for number, (one, two) in enumerate(BINNING.pairs):
        sides = [own_coarse(BINNING.columns[side], counts[spans[side]].tolist()) for side in (one, two)]
        start = BINNING.slot_spans()[len(BINNING.columns) + number].start
        for row, mine in zip(cells, slots.tolist(), strict=True):
            first, second = (sides[at][row[side] - spans[side].start] for at, side in enumerate((one, two)))
            assert mine[len(BINNING.columns) + number] == start + GROUPS * first + second


def test_a_pair_s_share_is_the_product_of_its_groups_and_never_below_zero():
    binning = Binning((AGE, AREA), 3, ((0, 1),))
    layout = layout_of(binning, np.array([0.5, -0.1, 0.25, 0.25, 0.0, 0.5, 0.25, 0.125, 0.125], np.float32))
    found = layout.share[binning.slot_spans()[2]].reshape(GROUPS, GROUPS)
    ages, areas = np.zeros(GROUPS), np.zeros(GROUPS)
    ages[:4], areas[:3], areas[-1] = [0.5, 0.0, 0.25, 0.25], [0.5, 0.25, 0.125], 0.125
    np.testing.assert_allclose(found, np.outer(ages, areas), atol=1e-7)
    assert (found >= 0).all()


def test_five_frequent_words_are_apart_and_the_others_together():
    counts = [1, 9, 2, 8, 3, 7, 6, 5, 4, 0]
    layout = layout_of(Binning((TRADE, AREA), 3, ((0, 1),)), np.array([*counts, 1, 1, 1, 1], np.float32))
    assert layout.coarse[0][0].tolist() == [5, 0, 5, 1, 5, 2, 3, 4, 5, 6]
