"""The additive family: trends are kept by the nearest weights that keep them."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from coterie.models.additive import along, ordered, settled
from coterie.models.binning import BinnedColumn, Binning, cells_of, layout_of, slots_of
from coterie.server.optimizers import OptimizerSettings, OptimizerState, advance, published

EDGES = (10.0, 20.0, 30.0, 40.0)


def spend(trend, atoms=()):
    return BinnedColumn("spend", atoms=atoms, edges=EDGES, trend=trend, low=0.0, high=50.0)


def laid(column, shares, *, most=9):
    """The layout of a column and of another, without a trend, before it."""
    free = BinnedColumn("region", words=("north", "south"))
    counts = np.array([0.6, 0.35, 0.05, *shares], np.float32)
    return layout_of(Binning((free, column), most=most), counts)


def weights_of(values, free=(3.0, -3.0, 1.0)):
    return np.array([[*free, *values]], np.float32), np.array([0.5], np.float32)


def min_max(values, heavy):
    """Isotonic regression by its closed form (Barlow et al. 1972, theorem 1.4): max over a <= i of min over b >= i."""
    count = len(values)
    means = [
        [np.average(values[a : b + 1], weights=heavy[a : b + 1]) if b >= a else 0.0 for b in range(count)]
        for a in range(count)
    ]
    return [max(min(means[a][b] for b in range(i, count)) for a in range(i + 1)) for i in range(count)]


def by_programme(values, heavy):
    """The same by a general solver of quadratic programmes."""
    count = len(values)
    rises = LinearConstraint(np.eye(count)[1:] - np.eye(count)[:-1], 0, np.inf)
    done = minimize(
        lambda x: float(np.sum(heavy * (x - values) ** 2)),
        np.sort(values),
        jac=lambda x: 2 * heavy * (x - values),
        constraints=[rises],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return done.x


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("trend", [1, -1])
def test_weights_with_a_trend_are_the_nearest_by_counts(seed, trend):
    draw = np.random.default_rng(seed)
    values, heavy = draw.normal(size=5).astype(np.float32).astype(float), draw.uniform(0.02, 1, 5)
    layout = laid(spend(trend), [*heavy, 0.01])
    found = ordered(weights_of([*values, 7.0]), layout)[0][0].astype(float)
    counted = layout.share[3:8]
    np.testing.assert_allclose(found[3:8], trend * np.array(min_max(trend * values, counted)), atol=1e-6)
    np.testing.assert_allclose(found[3:8], trend * by_programme(trend * values, counted), atol=1e-4)
    assert (trend * np.diff(found[3:8]) >= 0).all()


def test_other_columns_what_is_absent_and_the_intercept_stay_as_they_were():
    layout = laid(spend(1), [0.2, 0.2, 0.2, 0.2, 0.2, 0.01])
    slots, start = ordered(weights_of([5.0, 4.0, 3.0, 2.0, 1.0, -7.0]), layout)
    np.testing.assert_array_equal(slots[0], np.array([3, -3, 1, 3, 3, 3, 3, 3, -7], np.float32))
    assert start.tolist() == [0.5]
    free = laid(spend(0), [0.2, 0.2, 0.2, 0.2, 0.2, 0.01])
    same = weights_of([5.0, 4.0, 3.0, 2.0, 1.0, -7.0])
    assert ordered(same, free) is same


def test_what_keeps_its_trend_is_left_alone():
    layout = laid(spend(-1), [0.2, 0.2, 0.2, 0.2, 0.2, 0.01])
    kept = weights_of([2.0, 1.5, 1.5, 0.0, -1.0, 9.0])
    np.testing.assert_array_equal(ordered(kept, layout)[0], kept[0])


def values_along(column, layout, slots):
    """What the column adds to numbers from its low to its high, by asking for each."""
    numbers = np.unique([*np.linspace(0, 50, 201), *column.atoms, *EDGES])
    regions = np.zeros(len(numbers))
    cells = cells_of(layout.binning, {"region": regions, "spend": numbers})
    return numbers, slots[0].astype(float)[slots_of(layout, cells)[:, 1]]


@pytest.mark.parametrize("atoms", [(0.0,), (10.0, 40.0), (25.0,), (50.0,), (0.0, 12.0, 18.0, 50.0)])
@pytest.mark.parametrize("trend", [1, -1])
@pytest.mark.parametrize("most", [9, 2])
def test_no_number_breaks_a_trend_wherever_atoms_stand(atoms, trend, most):
    column = spend(trend, atoms)
    for seed in range(5):
        draw = np.random.default_rng([seed, most])
        layout = laid(column, [*draw.uniform(0.02, 1, len(atoms) + 5), 0.01], most=most)
        values = draw.normal(size=layout.binning.slots - 3)
        told = values_along(column, layout, ordered(weights_of(values), layout)[0])[1]
        assert (trend * np.diff(told) >= 0).all()


def test_an_atom_stands_by_its_value_among_the_bins():
    # Cells: the atoms 0, 20 and 25, five cells, absent; the atom 25 is inside the third cell, and in one place with it.
    layout = laid(spend(1, (0.0, 20.0, 25.0)), [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0])
    assert along(layout, 1) == [[3], [6], [7], [4], [8, 5], [9], [10]]
    slots = ordered(weights_of([0.0, 5.0, 9.0, 1.0, 2.0, 7.0, 10.0, 11.0, -1.0]), layout)[0][0]
    np.testing.assert_allclose(slots[3:], [0, 5, 8, 1, 2, 8, 10, 11, -1])


def test_an_empty_bin_gives_way_to_its_neighbours():
    layout = laid(spend(1), [0.3, 0.3, -0.01, 0.2, 0.2, 0.01])
    slots = ordered(weights_of([0.0, 1.0, -50.0, 2.0, 3.0, 0.0]), layout)[0][0]
    np.testing.assert_allclose(slots[3:8], [0, 1, 1, 2, 3], atol=1e-5)


@pytest.mark.parametrize("averaging", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("trend", [1, -1])
def test_a_published_average_keeps_the_trend_of_every_step(trend, averaging):
    column = spend(trend, (0.0, 30.0))
    layout = laid(column, [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.09, 0.01])
    settings = OptimizerSettings(kind="newton", learning_rate=0.5, momentum=0.8, averaging=averaging)
    draw = np.random.default_rng(3)
    state = OptimizerState.start(weights_of([0.0] * 8))
    for _ in range(25):
        noise = [draw.normal(size=(1, 11)), draw.normal(size=1)]
        state = advance(settings, state, noise, within=lambda weights: ordered(weights, layout))
        for slots in (state.weights[0], published(settings, state)[0]):
            assert (trend * np.diff(values_along(column, layout, slots)[1]) >= 0).all()


def test_a_wrong_sign_that_the_noise_gave_is_put_right():
    layout = laid(spend(1), [0.3, 0.3, 0.2, 0.1, 0.09, 0.01])
    truth = np.array([-0.4, -0.1, 0.0, 0.3, 0.8])
    noisy = truth + np.array([0.0, 0.0, 0.0, 0.6, -1.4])
    slots = ordered(weights_of([*noisy, 0.0]), layout)[0][0][3:8]
    assert noisy[4] < noisy[3]
    assert (np.diff(slots) >= 0).all()
    before, after = (np.sum(layout.share[3:8] * (one - truth) ** 2) for one in (noisy, slots))
    assert after < before


def test_what_hardly_anybody_has_says_no_more_than_the_mean_of_its_column():
    columns = (
        BinnedColumn("plan", words=("basic", "plus", "rare")),
        BinnedColumn("visits", atoms=(0.0,), edges=(1.0, 2.0, 3.0), low=0.0, high=4.0),
    )
    binning = Binning(columns, 2)
    # basic, plus, rare, absent; the atom, four cells of which two are joined twice, absent
    shares = np.array([0.6, 0.399, 0.001, -0.02, 0.5, 0.001, 0.002, 0.3, 0.2, 0.011], dtype=np.float32)
    layout = layout_of(binning, shares)
    before = np.array([[1.0, -1.0, 9.0, -7.0, 0.5, 3.0, 0.25, 8.0]], dtype=np.float32)
    after, start = settled((before, np.array([0.3], dtype=np.float32)), layout, noise=0.01)
    mean = (0.6 * 1.0 - 0.399 * 1.0) / 0.999
    assert after[0, :4] == pytest.approx([1.0, -1.0, mean, mean], abs=1e-6)
    assert after[0, 4:] == pytest.approx(before[0, 4:])  # joined cells stay, and what is above one deviation does
    assert start == pytest.approx([0.3])
    nothing, _ = settled((before, start), layout, noise=0.0)
    assert nothing[0] == pytest.approx([1.0, -1.0, 9.0, mean_of(before[0, :3], shares[:3]), *before[0, 4:]], abs=1e-6)


def mean_of(weights, shares):
    return float(weights @ shares) / float(shares.sum())
