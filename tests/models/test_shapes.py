"""The explanation is the model: shapes add up to it, and say how much of them is noise."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from coterie.clients.explaining import explained, learning_of
from coterie.clients.predicting import layout_for, parameters_of
from coterie.clients.task import binning_of, initial_weights
from coterie.models.additive import margins
from coterie.models.binning import GROUPS, BinnedColumn, Binning, cells_of, layout_of, slots_of
from coterie.models.shapes import centred, explain, shares_within
from coterie.models.stepnoise import Learning
from coterie.privacy.plan import Bins, Secure
from coterie.privacy.randomness import OsSource
from coterie.privacy.sums import numbers_of
from coterie.privacy.training.binnedsums import Judged, ResidualSettings, residual_total
from coterie.server.binnedsteps import binned_step
from coterie.server.optimizers import OptimizerState
from coterie.server.steps import Total, stepped, told
from coterie.tests.clients.binnedkit import binned

BINNING = Binning(
    (
        BinnedColumn("spend", atoms=(0.0, 25.0), edges=(10.0, 20.0, 30.0), trend=1, low=0.0, high=50.0),
        BinnedColumn("region", words=("north", "south", "east")),
    ),
    most=3,
    pairs=((0, 1),),
)
COUNTS = np.array([0.4, 0.1, 0.05, 0.04, 0.2, 0.2, 0.01, 0.5, 0.4, 0.12, -0.02], np.float32)
LAYOUT = layout_of(BINNING, COUNTS)
LEARNING = Learning(
    kind="newton",
    steps=20,
    learning_rate=0.3,
    momentum=0.8,
    averaging=0.9,
    noise=0.002,
    customers=5000,
    ridge=0.0004,
    damping=0.002,
)


def random_weights(seed=1):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(1, BINNING.slots)).astype(np.float32), draw.normal(size=1).astype(np.float32)


def shape(found, name):
    return next(one for one in found.shapes if one.name == name)


def test_a_numeric_column_is_told_by_ascending_value_with_its_atoms_among_its_bins():
    points = shape(explain(random_weights(), LAYOUT, LEARNING), "spend").points
    told_ = [(point.kind, point.label, point.low, point.high) for point in points]
    # The first two cells are joined: no two neighbours have fewer. The atom 25 is inside a bin and comes after it.
    assert told_ == [
        ("atom", "0", 0.0, 0.0),
        ("bin", "0 to 20", 0.0, 20.0),
        ("bin", "20 to 30", 20.0, 30.0),
        ("atom", "25", 25.0, 25.0),
        ("bin", "30 to 50", 30.0, 50.0),
        ("absent", "absent", None, None),
    ]
    np.testing.assert_allclose([point.share for point in points], [0.4, 0.09, 0.2, 0.1, 0.2, 0.01], rtol=1e-5)
    assert shape(explain(random_weights(), LAYOUT, LEARNING), "spend").trend == 1


def test_points_and_the_intercept_add_up_to_the_score_of_any_row():
    weights = random_weights()
    found = explain(weights, LAYOUT, LEARNING)
    spend, region, (pair,) = shape(found, "spend").points, shape(found, "region").points, found.pairs
    numbers, words = np.array([0.0, 5.0, 22.0, 25.0, 49.0, np.nan]), np.array([0.0, 1.0, 2.0, -1.0, 0.0, 2.0])
    slots = slots_of(LAYOUT, cells_of(BINNING, {"spend": numbers, "region": words}))
    scores = margins(weights, slots)
    # Groups of the spend: 0; to 20; 20 to 30; 25; from 30; none is left; absent.
    groups = [pair.groups[0].index(text) for text in ("0", "0 to 10", "20 to 30", "25", "30 to 50", "absent")]
    for row, (word, place, group) in enumerate(zip([0, 1, 2, 3, 0, 2], range(6), groups, strict=True)):
        cell = pair.contribution[group, GROUPS - 1 if word == 3 else word]
        whole = found.intercept + spend[place].contribution + region[word].contribution + cell
        assert whole == pytest.approx(scores[row], abs=1e-9)


def test_contributions_have_a_mean_of_zero_over_the_noisy_shares_and_importance_is_their_mean_size():
    found = explain(random_weights(), LAYOUT, LEARNING)
    for one in found.shapes:
        share = np.maximum([point.share for point in one.points], 0)
        added = np.array([point.contribution for point in one.points])
        assert share @ added == pytest.approx(0, abs=1e-9)
        assert one.importance == pytest.approx(share @ np.abs(added) / share.sum(), rel=1e-6)
    assert [one.importance for one in found.shapes] == sorted((one.importance for one in found.shapes), reverse=True)
    (pair,) = found.pairs
    assert (pair.share * pair.contribution).sum() == pytest.approx(0, abs=1e-9)


def test_a_column_of_which_noise_left_nothing_is_centred_evenly():
    layout = layout_of(BINNING, np.full(11, -0.01, np.float32))
    flat, _ = centred(random_weights(), layout)
    np.testing.assert_allclose(shares_within(layout)[6:10], 0.25)
    assert flat[6:10].mean() == pytest.approx(0, abs=1e-12)


def test_sampling_is_by_the_customers_of_a_slot():
    weights = random_weights()
    found = explain((0 * weights[0], 0 * weights[1]), LAYOUT, LEARNING)
    for point in (*shape(found, "spend").points, *shape(found, "region").points):
        customers = max(5000 * point.share, 1)
        assert point.sampling == pytest.approx(1 / np.sqrt(customers * 0.25), rel=1e-5)


def test_noise_is_not_told_of_steps_that_are_not_linear():
    found = explain(random_weights(), LAYOUT, dataclasses.replace(LEARNING, kind="adam"))
    assert all(point.noise is None and point.noise_most is None for one in found.shapes for point in one.points)
    assert found.pairs[0].noise is None
    assert found.pairs[0].noise_most is None


def test_noise_is_least_where_columns_have_nothing_to_do_with_each_other():
    found = explain(random_weights(), LAYOUT, LEARNING)
    assert all(0 < point.noise <= point.noise_most for one in found.shapes for point in one.points)
    assert (found.pairs[0].noise <= found.pairs[0].noise_most).all()


def test_groups_of_a_pair_are_told_by_what_they_hold():
    (pair,) = explain(random_weights(), LAYOUT, LEARNING).pairs
    assert pair.groups[0] == ("0", "0 to 10", "10 to 20", "20 to 30", "25", "30 to 50", "absent")
    assert pair.groups[1] == ("north", "south", "east", "", "", "", "absent")


def test_models_whose_weights_say_nothing_by_themselves_are_not_told():
    plan = binned("mlp")
    assert explained(plan, initial_weights(plan)) is None
    without = dataclasses.replace(binned("logistic"), bins=None, secure=None)
    assert explained(without, initial_weights(without)) is None


@pytest.mark.parametrize("trust", ["local", "secure-aggregation"])
def test_the_noise_and_the_clip_are_those_of_the_sums_in_which_everybody_is(trust, monkeypatch):
    plan = binned("additive", trust, training__sample_rate=0.5)
    names, seen = tuple(partner.name for partner in plan.partners), {}
    monkeypatch.setattr("coterie.server.steps.binned_step", lambda *_, **given: seen.update(given))
    size = sum(int(np.prod(one.shape)) for one in initial_weights(plan)[1:])
    state = OptimizerState.start(initial_weights(plan))
    stepped(plan, state, "train/1", Total(np.zeros(size, np.int64), names))
    learning = learning_of(plan)
    assert (learning.noise, learning.customers) == (pytest.approx(seen["noise"], rel=1e-12), seen["customers"])
    assert (learning.damping, learning.ridge) == (pytest.approx(seen["noise"]), 1.0 / 400)  # of one each in the plan
    assert (learning.steps, learning.learning_rate, learning.momentum, learning.averaging) == (3, 0.5, 0.5, 0.5)
    # One row that the model is all wrong about: what is left of its residual is the clip.
    numbers = numbers_of(plan, "train/1")
    settings = ResidualSettings(
        clip=2.0, sensitivity=numbers.sensitivity, bound=2**40, sample_rate=1.0, positive_weight=50.0
    )
    judged = Judged(np.array([-30.0]), np.ones(1, np.float32), np.zeros(1, np.int64))
    stream = OsSource().stream("shapes")
    left = residual_total(np.zeros((1, 3), np.int64), judged, width=1, settings=settings, stream=stream)[-1]
    assert left * 2.0 / numbers.sensitivity == pytest.approx(-learning.residual, rel=1e-3)


# Against the real steps: columns that have nothing to do with each other, and many draws of the noise.

DRAWS, ROWS = 250, 400
FALSE_ALARM = 1e-6


def synthetic(plan):
    """Cells and labels of independent columns, and the exact counts of the cells."""
    draw = np.random.default_rng(8)
    binning = binning_of(plan)
    columns = {
        "age": draw.choice(np.linspace(20, 88, 9), ROWS),
        "spend": np.where(draw.uniform(size=ROWS) < 0.4, 0.0, draw.choice([30.0, 300.0, 3000.0], ROWS)),
        "region": draw.choice([0.0, 1.0, 2.0], ROWS, p=[0.5, 0.3, 0.2]),
    }
    cells = cells_of(binning, columns)
    odds = (columns["age"] - 54) / 30 + (columns["spend"] > 0) - 0.5 * columns["region"] - 0.5
    labels = draw.uniform(size=ROWS) < 1 / (1 + np.exp(-odds))
    counts = np.bincount(cells.ravel(), minlength=binning.cells) / ROWS
    return cells, labels, counts.astype(np.float32)


def learned(plan, cells, labels, counts, learning, draw):
    """Take the server's own steps along exact mean gradients with noise."""
    slots = slots_of(layout_of(binning_of(plan), counts), cells)
    state = OptimizerState.start((counts, *initial_weights(plan)[1:]))
    for step in range(learning.steps):
        odds = margins(state.weights[1:], slots)
        residual = np.clip(1 / (1 + np.exp(-odds)) - labels, -learning.residual, learning.residual)
        width = binning_of(plan).slots
        gradient = np.bincount(slots.ravel(), weights=np.repeat(residual, slots.shape[1]), minlength=width)
        mean = np.append(gradient, residual.sum()) / ROWS + learning.noise * draw.standard_normal(width + 1)
        name = f"train/{step + 1}"
        state = binned_step(plan, state, name, mean, noise=learning.noise, customers=learning.customers)
    return told(plan, state)


@pytest.mark.parametrize(("optimizer", "rate"), [("newton", 0.4), ("sgd", 1.0)])
def test_the_noise_of_a_shape_is_what_many_draws_of_it_leave(optimizer, rate):
    secure = Secure(optimizer=optimizer, momentum=0.6, averaging=0.8)
    plan = binned("additive", secure=secure, bins=Bins(most=5, cells=16, ridge=1.0, damping=1.0))
    plan = dataclasses.replace(
        plan, training=dataclasses.replace(plan.training, local_steps=25, learning_rate=rate, clip=4.0)
    )
    learning = dataclasses.replace(learning_of(plan), noise=0.002, damping=0.002)
    cells, labels, counts = synthetic(plan)
    draw = np.random.default_rng(17)
    models = [learned(plan, cells, labels, counts, learning, draw) for _ in range(DRAWS)]
    layout = layout_for(plan, models[0])
    apart = np.std([centred(parameters_of(plan, one), layout)[0] for one in models], axis=0, ddof=1)
    mean = tuple(np.mean([one[at] for one in models], axis=0) for at in (1, 2))
    found = explain(mean, layout, learning)
    compared = 0
    for column, span in zip(layout.binning.columns, layout.binning.slot_spans(), strict=True):
        predicted = {round(point.contribution, 9): point for point in shape(found, column.name).points}
        flat = centred(mean, layout)[0]
        for slot in range(span.start, span.stop):
            point = predicted.get(round(float(flat[slot]), 9))
            if point is not None and point.share > 0.02:
                compared += 1
                # What is left out may move the deviation by a twelfth; the rest is chance, at the stated odds.
                low, high = stats.chi2.ppf([FALSE_ALARM / 60, 1 - FALSE_ALARM / 60], DRAWS - 1) / (DRAWS - 1)
                ratio = apart[slot] / point.noise
                assert np.sqrt(low) / 1.08 < ratio < np.sqrt(high) * 1.08, (column.name, point.label, ratio)
                assert apart[slot] < np.sqrt(high) * point.noise_most
    assert compared >= 12
