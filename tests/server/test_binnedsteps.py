"""What the coordinator makes of sums on private bins: counts that stay, and steps against a computation by hand."""

import dataclasses
import math

import numpy as np
import pytest

from coterie.clients.agreed import check_sum
from coterie.clients.predicting import layout_for, row_logits
from coterie.clients.sumwire import decode_sum, encode_sum
from coterie.clients.task import SumTask, binning_of, initial_weights, weight_shapes
from coterie.models.binning import layout_of
from coterie.privacy.plan import Partner, Secure
from coterie.privacy.schedule import trained
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState
from coterie.server.steps import Total, size_of, stepped, told
from coterie.tests.clients.binnedkit import BINS, FAMILIES, TRUSTS, binned
from coterie.tests.clients.summing import FOUR

SIZES = (100, 200, 400, 800)
THREE = (FOUR[0], *FOUR[2:])


def sized(family="additive", trust="local", **changes):
    """A plan of partners of several sizes."""
    partners = tuple(Partner(name=name, customers=size) for name, size in zip(FOUR, SIZES, strict=True))
    return binned(family, trust, partners=partners, **changes)


def declared_by(survivors):
    return sum(size for name, size in zip(FOUR, SIZES, strict=True) if name in survivors)


def opened(plan, step, seed=0, scale=1.0):
    """A sum of the size that partners' noise alone has."""
    draw, share = np.random.default_rng([seed, len(step)]), numbers_of(plan, step).share
    return np.rint(draw.normal(size=size_of(plan, step)) * share * scale).astype(np.int64)


def counted(plan, survivors=FOUR, seed=0):
    """The state after a count."""
    start = OptimizerState.start(initial_weights(plan))
    total = np.abs(opened(plan, "count/1", seed)) + numbers_of(plan, "count/1").sensitivity * 20
    return stepped(plan, start, "count/1", Total(total, survivors)), total


def flat(arrays):
    return [value for array in arrays for value in np.asarray(array, dtype=np.float64).ravel().tolist()]


# --- counts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("survivors", [FOUR, THREE])
@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_count_becomes_shares_of_the_declared_customers_and_nothing_else_moves(family, trust, survivors):
    plan = sized(family, trust, training__sample_rate=0.5, training__clip=3.0)  # neither of which is a count's
    state, total = counted(plan, survivors)
    # A row counts 1 / sqrt(3) in each of its three columns.
    shares = [value / numbers_of(plan, "count/1").sensitivity * math.sqrt(3) for value in total.tolist()]
    np.testing.assert_allclose(state.weights[0], np.array(shares) / declared_by(survivors), rtol=1e-6)
    assert state.weights[0].dtype == np.float32
    for after, before in zip(state.weights[1:], initial_weights(plan)[1:], strict=True):
        assert np.array_equal(after, before)
    assert state.step == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "newton"])
@pytest.mark.parametrize("averaging", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_stay_bit_for_bit_however_many_steps_are_taken_and_averaged(family, averaging, optimizer):
    if (family, optimizer) == ("mlp", "newton"):
        optimizer = "sgd"
    plan = sized(family, secure=Secure(optimizer=optimizer, momentum=0.7, averaging=averaging))
    state, _ = counted(plan)
    counts = state.weights[0].tobytes()
    for number in range(60):
        state = stepped(plan, state, "train/1", Total(opened(plan, "train/1", number), FOUR))
        assert state.weights[0].tobytes() == counts
        assert told(plan, state)[0].tobytes() == counts
    moved = [not np.array_equal(a, b) for a, b in zip(told(plan, state)[1:], initial_weights(plan)[1:], strict=True)]
    assert all(moved)
    same = np.isclose(told(plan, state)[1], state.weights[1], rtol=0, atol=1e-9).mean()
    assert (same > 0.8) == (averaging == 0)  # but for slots that hardly anybody is in


@pytest.mark.parametrize("family", FAMILIES)
def test_partners_make_of_what_is_on_the_wire_the_bins_that_the_coordinator_has(family):
    plan = sized(family, bins=dataclasses.replace(BINS, pairs=("age * region",)))
    state, _ = counted(plan)
    for number in range(5):
        state = stepped(plan, state, "train/1", Total(opened(plan, "train/1", number), FOUR))
    for weights in (state.weights, told(plan, state)):
        asked = SumTask(plan.digest(), "train/3", 1, weights, 1, FOUR[:1], ())
        arrived = decode_sum(encode_sum(asked)).weights
        here, there = layout_of(binning_of(plan), state.weights[0]), layout_for(plan, arrived)
        assert there.slot.tolist() == here.slot.tolist()
        assert there.share.tobytes() == here.share.tobytes()
        for mine, theirs in zip(there.coarse, here.coarse, strict=True):
            assert all(np.array_equal(one, other) for one, other in zip(mine, theirs, strict=True))
        cells = np.array([[0, 17, 35], [16, 34, 38], [3, 20, 36]])
        assert row_logits(plan, arrived, cells).tobytes() == row_logits(plan, weights, cells).tobytes()


# --- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("survivors", [FOUR, THREE])
@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("family", ["additive", "logistic"])
def test_newton_s_steps_are_those_of_a_computation_by_hand(family, trust, survivors):
    plan = sized(family, trust, training__sample_rate=0.5, training__clip=3.0, training__learning_rate=0.25)
    plan = dataclasses.replace(plan, secure=Secure(optimizer="newton", momentum=0.5, averaging=0.75))
    state, _ = counted(plan, survivors)
    declared, numbers = declared_by(survivors), numbers_of(plan, "train/1")
    unit = 3.0 / numbers.sensitivity / (0.5 * declared)
    noise = math.sqrt(len(survivors)) * numbers.share * unit
    share = layout_of(binning_of(plan), state.weights[0]).share.tolist()
    heights = [0.25 * max(held, 0.0) + 1.0 / declared + 1.0 * noise for held in share] + [0.25 + noise]
    places, slots = flat(state.weights[1:]), len(share)
    running, average = [0.0] * len(places), [0.0] * len(places)
    for number in range(3):
        total = opened(plan, "train/1", number, scale=5.0)
        state = stepped(plan, state, f"train/{number + 1}", Total(total, survivors))
        for at, value in enumerate(total.tolist()):
            gradient = value * unit + (places[at] / declared if at < slots else 0.0)
            running[at] = 0.5 * running[at] + gradient / heights[at]
            places[at] = float(np.float32(places[at] - 0.25 * running[at]))
            average[at] = 0.75 * average[at] + 0.25 * places[at]
        np.testing.assert_allclose(flat(state.weights[1:]), places, rtol=1e-5, atol=1e-7)
        published = [value / (1 - 0.75 ** (number + 1)) for value in average]
        np.testing.assert_allclose(flat(told(plan, state)[1:]), published, rtol=1e-5, atol=1e-7)
    assert max(map(abs, places)) > 0.05


def test_more_damping_and_more_ridge_make_shorter_steps():
    lengths = []
    for damping, ridge in ((0.0, 0.0), (1.0, 0.0), (4.0, 0.0), (4.0, 50.0)):
        plan = sized(bins=dataclasses.replace(BINS, damping=damping, ridge=ridge or 1e-9))
        state, _ = counted(plan)
        after = stepped(plan, state, "train/1", Total(opened(plan, "train/1"), FOUR)).weights[1]
        lengths.append(float(np.abs(after).sum()))
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 4


def test_an_mlp_on_bins_steps_along_its_gradient_alone():
    plan = sized("mlp", secure=Secure(optimizer="sgd"), training__clip=3.0, training__learning_rate=0.25)
    state, _ = counted(plan)
    total = opened(plan, "train/1", scale=100.0)
    after = stepped(plan, state, "train/1", Total(total, FOUR))
    gradient = total * 3.0 / numbers_of(plan, "train/1").sensitivity / 1500
    moved = np.array(flat(after.weights[1:])) - flat(state.weights[1:])
    np.testing.assert_allclose(moved, -0.25 * gradient, rtol=1e-3, atol=1e-6)
    assert np.abs(moved).max() > 0.01


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "newton"])
def test_no_step_and_no_average_of_steps_breaks_a_trend(optimizer):
    plan = sized(
        bins=dataclasses.replace(BINS, rising=("spend",), falling=("age",)),
        secure=Secure(optimizer=optimizer, momentum=0.9, averaging=0.8),
    )
    state, _ = counted(plan)
    binning = binning_of(plan)
    age, spend, _ = binning.cell_spans()
    # All the fine cells of age, then nothing spent and all the fine cells of what was.
    ages = [[cell, spend.start, spend.stop] for cell in range(age.start, age.stop - 1)]
    spends = [[age.start, cell, spend.stop] for cell in range(spend.start, spend.stop - 1)]
    for number in range(12):
        state = stepped(plan, state, "train/1", Total(opened(plan, "train/1", number, scale=50.0), FOUR))
        for weights in (state.weights, told(plan, state)):
            assert (np.diff(row_logits(plan, weights, np.array(ages))) <= 0).all()
            assert (np.diff(row_logits(plan, weights, np.array(spends))) >= 0).all()
    assert np.ptp(row_logits(plan, state.weights, np.array(spends))) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sum_has_as_many_coordinates_as_cells_or_as_the_parameters(family):
    plan = sized(family, bins=dataclasses.replace(BINS, pairs=("age * region",)))
    # Cells: 16 of age, 16 and zero of what was spent, three words; each with one for what is missing.
    assert size_of(plan, "count/1") == 17 + 18 + 4 == weight_shapes(plan)[0][0]
    slots = 6 + 7 + 4 + 49
    wanted = {"mlp": 3 * slots + 3 + 3 + 1}.get(family, slots + 1)
    assert size_of(plan, "train/1") == size_of(plan, "train/3") == wanted


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_study_of_noise_alone_asks_nothing_that_partners_would_refuse(family, trust, seed):
    plan = sized(family, trust, privacy__epsilon=0.5, training__learning_rate=1.0)
    state = OptimizerState.start(initial_weights(plan))
    for number, step in enumerate(trained(plan)):
        check_sum(SumTask(plan.digest(), step, 1, state.weights, 1, FOUR[:1], ()), plan)
        state = stepped(plan, state, step, Total(opened(plan, step, 10 * seed + number, scale=2.0), FOUR))
    check_sum(SumTask(plan.digest(), "evaluate/1", 1, told(plan, state), 1, FOUR[:1], ()), plan)
    assert tuple(array.shape for array in told(plan, state)) == weight_shapes(plan)


# --- what is published --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("family", ["additive", "logistic"])
def test_a_word_below_one_deviation_of_the_noise_of_counts_is_published_as_its_column_s_mean(family, trust):
    plan = sized(family, trust)
    binning, numbers = binning_of(plan), numbers_of(plan, "count/1")
    # All partners' noise in a cell, as a share of the declared customers; a row counts 1 / sqrt(columns) in it.
    deviation = numbers.share * len(SIZES) ** 0.5 / numbers.sensitivity * len(binning.columns) ** 0.5 / sum(SIZES)
    place = next(index for index, column in enumerate(binning.columns) if len(column.words) > 1)
    cells, slots = binning.cell_spans()[place], binning.slot_spans()[place]
    start = initial_weights(plan)
    counts, weights = np.full_like(start[0], 100 * deviation), start[1].copy()
    weights[0] = np.arange(weights.shape[1])
    counts[cells.start : cells.start + 2] = 0.99 * deviation, 1.01 * deviation
    published = told(plan, OptimizerState.start((counts, weights, start[2])))
    kept = [100.0] * (slots.stop - slots.start)
    kept[:2] = 0.0, 1.01
    mean = np.average(weights[0, slots], weights=kept)
    wanted = weights.copy()
    wanted[0, slots.start] = mean
    np.testing.assert_allclose(published[1], wanted, rtol=1e-5)
    assert np.array_equal(published[0], counts)
