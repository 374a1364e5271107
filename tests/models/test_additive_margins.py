"""The additive family: margins alone and among others, its curvature and ridge by hand, and trends that are kept."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from coterie.models.additive import curvature, margins, ordered, ridged
from coterie.models.binning import BinnedColumn, Binning, cells_of, layout_of, one_hot, slots_of

WIDTH, ACTIVE = 60, 6


def some(rows, seed=0):
    """Weights of many sizes, and slots of rows: one in each of six tens."""
    draw = np.random.default_rng(seed)
    flat = (draw.normal(size=(1, WIDTH)) * 10.0 ** draw.uniform(-6, 6, WIDTH)).astype(np.float32)
    slots = draw.integers(0, 10, (rows, ACTIVE)) + 10 * np.arange(ACTIVE)
    return (flat, np.array([0.3], np.float32)), slots


# --- margins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 1000])
def test_a_row_s_margin_is_the_same_bit_for_bit_alone_and_among_others(rows):
    weights, slots = some(rows)
    together = margins(weights, slots)
    for row in range(0, rows, 1 + rows // 40):
        assert margins(weights, slots[row : row + 1]).tobytes() == together[row : row + 1].tobytes()
    draw = np.random.default_rng(1)
    for _ in range(5):
        order = draw.permutation(rows)[: draw.integers(1, rows + 1)]
        assert margins(weights, slots[order]).tobytes() == together[order].tobytes()


@pytest.mark.parametrize("rows", [1, 500])
def test_margins_are_the_dense_product_in_float64(rows):
    weights, slots = some(rows, seed=2)
    exact = [math.fsum([float(weights[1][0]), *(float(weights[0][0, slot]) for slot in row)]) for row in slots.tolist()]
    found = margins(weights, slots)
    assert found.dtype == np.float64
    scale = np.abs(weights[0][0].astype(np.float64)[slots]).sum(axis=1)
    assert (np.abs(found - exact) <= 1e-15 * ACTIVE * (scale + 1)).all()
    dense = one_hot(slots, WIDTH).astype(np.float64) @ weights[0][0].astype(np.float64) + float(weights[1][0])
    np.testing.assert_allclose(found, dense, rtol=1e-12, atol=1e-9)


# --- curvature and ridge ------------------------------------------------------------------------------------

PLAIN = Binning((BinnedColumn("x", edges=(1.0, 2.0)), BinnedColumn("y", words=("a", "b"))), 3)
SHARES = np.array([0.5, 0.25, -0.25, 0.5, 0.75, 0.125, 0.125], np.float32)


def test_the_curvature_is_a_quarter_of_the_share_and_what_is_added_and_never_less():
    slots, start = curvature(layout_of(PLAIN, SHARES), ridge=0.01, damping=0.2)
    np.testing.assert_allclose(slots[0], [0.335, 0.2725, 0.21, 0.335, 0.3975, 0.24125, 0.24125], rtol=1e-12)
    assert slots.shape == (1, 7)
    np.testing.assert_allclose(start, [0.45], rtol=1e-12)


def test_the_ridge_pulls_every_slot_and_not_the_intercept():
    weights = np.arange(7, dtype=np.float32)[None, :], np.array([5.0], np.float32)
    slots, start = ridged(weights, [np.ones((1, 7)), np.array([2.0])], ridge=0.5)
    assert slots.tolist() == [[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]]
    assert start.tolist() == [2.0]


# --- trends -------------------------------------------------------------------------------------------------

EDGES = tuple(float(edge) for edge in range(10, 100, 10))
ATOMS = {
    "none": (),
    "at the low end": (0.0,),
    "at the high end": (100.0,),
    "on an edge": (40.0,),
    "inside a cell": (45.0,),
    "many": (0.0, 20.0, 33.0, 34.0, 60.0, 100.0),
}
LADDER = np.unique([*np.linspace(0, 100, 401), *ATOMS["many"], 45.0])


def drawn(atoms, trend, seed, most=4):
    """A column with a trend beside one without, their bins, and weights."""
    draw = np.random.default_rng(seed)
    binning = Binning(
        (
            BinnedColumn("x", atoms=ATOMS[atoms], edges=EDGES, trend=trend, low=0.0, high=100.0),
            BinnedColumn("y", words=("a", "b")),
        ),
        most,
    )
    layout = layout_of(binning, draw.normal(0.1, 0.1, binning.cells).astype(np.float32))
    return layout, (draw.normal(size=(1, binning.slots)).astype(np.float32), np.array([0.25], np.float32))


def scores(layout, weights, values):
    cells = cells_of(layout.binning, {"x": np.asarray(values, float), "y": np.zeros(len(values))})
    return margins(weights, slots_of(layout, cells))


@pytest.mark.parametrize("trend", [1, -1])
@pytest.mark.parametrize("atoms", ATOMS)
def test_along_a_column_with_a_trend_no_value_scores_against_it(atoms, trend):
    for seed in range(30):
        layout, weights = drawn(atoms, trend, seed)
        steps = trend * np.diff(scores(layout, ordered(weights, layout), LADDER))
        assert steps.min() >= 0


@pytest.mark.parametrize("trend", [1, -1])
def test_the_average_of_weights_that_keep_a_trend_keeps_it(trend):
    running, share = 0.0, 0.9
    for seed in range(12):
        layout, _ = drawn("many", trend, 5)
        weights = np.random.default_rng(seed).normal(size=(1, layout.binning.slots)).astype(np.float32)
        running = share * running + (1 - share) * ordered((weights, np.zeros(1, np.float32)), layout)[0]
    average = (running / (1 - share**12)).astype(np.float32), np.zeros(1, np.float32)
    assert (trend * np.diff(scores(layout, average, LADDER))).min() >= 0


@pytest.mark.parametrize("atoms", ATOMS)
def test_weights_that_keep_the_trend_and_all_that_has_none_stay_as_they_were(atoms):
    layout, weights = drawn(atoms, 1, 7)
    once = ordered(weights, layout)
    twice = ordered(once, layout)
    np.testing.assert_allclose(twice[0], once[0], rtol=0, atol=1e-7)
    other, absent = layout.binning.slot_spans()[1], layout.binning.slot_spans()[0].stop - 1
    assert once[0][0, other].tolist() == weights[0][0, other].tolist()
    assert once[0][0, absent] == weights[0][0, absent]
    assert once[1] is weights[1]
    flat, plain = drawn(atoms, 0, 7)
    assert ordered(plain, flat) is plain


@pytest.mark.parametrize("atoms", ["none", "at the low end", "on an edge", "many"])
def test_no_other_weights_that_keep_the_trend_are_nearer(atoms):
    layout, weights = drawn(atoms, 1, 11)
    heavy = np.maximum(layout.share, 1e-9)
    span = layout.binning.slot_spans()[0]
    used = sorted(set(layout.slot[: layout.binning.columns[0].cells - 1].tolist()))
    start = weights[0][0].astype(np.float64)

    def distance(values):
        return float((heavy[used] * (values - start[used]) ** 2).sum())

    def slack(values):
        changed = start.copy()
        changed[used] = values
        return np.diff(scores(layout, (changed[None, :], np.zeros(1)), LADDER))

    found = minimize(
        distance,
        np.zeros(len(used)),
        constraints=[{"type": "ineq", "fun": slack}],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    ours = ordered(weights, layout)[0][0].astype(np.float64)
    assert distance(ours[used]) <= found.fun + 1e-6
    assert found.fun >= distance(ours[used]) - 1e-4
    assert span.stop == layout.binning.columns[0].slots(4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=10, max_size=10), st.integers(0, 1000))
def test_fewest_customers_move_farthest(values, seed):
    layout, _ = drawn("none", 1, seed, most=10)
    weights = np.zeros((1, layout.binning.slots), np.float32)
    weights[0, :10] = values
    after = ordered((weights, np.zeros(1, np.float32)), layout)[0][0, :10].astype(np.float64)
    heavy = np.maximum(layout.share[:10], 1e-9)
    # The means of blocks, weighted by customers, are kept: the whole mean is, too.
    np.testing.assert_allclose(np.average(after, weights=heavy), np.average(values, weights=heavy), atol=1e-5)
    assert (np.diff(after) >= 0).all()
