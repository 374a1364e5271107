"""Whole-number sums against plain autograd, and how much one customer can change them, counted in whole numbers."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, chi2
from torch.nn import functional

from coterie.models.propensity import build
from coterie.privacy.training import Customers, Summer, SumSettings, Trainer, engine, sums
from coterie.privacy.training.sums import IntegerSumOptimizer, greatest_norm, whole_numbers

WIDTH, HIDDEN, CLIP, UNITS = 5, 3, 0.8, 2**16
FAMILIES = ["logistic", "mlp"]
UNBOUND = 2**62

real_whole_numbers = whole_numbers


def asked(**changes):
    plain = {"clip": CLIP, "sensitivity": UNITS, "bound": UNBOUND, "sample_rate": 1.0, "positive_weight": 1.0}
    return SumSettings(**{**plain, **changes})


def summed(lab, family, data, weights, summer=None, **changes):
    summer = summer or Summer(build(family, WIDTH, HIDDEN))
    return summer.total(weights, Customers(*data), settings=asked(**changes), stream=lab.stream())


# --- an oracle: one customer at a time, plain autograd in float64, whole numbers of Python --------------


def own_gradient(family, weights, features, labels, positive_weight=1.0):
    module = build(family, features.shape[1], HIDDEN).double()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    loss = torch.zeros((), dtype=torch.float64)
    for row, label in zip(torch.from_numpy(features).double(), labels, strict=True):
        logit = module(row)[0]
        term = positive_weight * functional.softplus(-logit) if label > 0 else functional.softplus(logit)
        loss = loss + term / len(labels)
    loss.backward()
    return np.concatenate([p.grad.reshape(-1).numpy() for p in module.parameters()])


def own_units(gradient, clip=CLIP, units=UNITS):
    """Return what a customer with this gradient adds."""
    most = units - math.sqrt(len(gradient)) / 2
    scaled = gradient * (units / clip)
    norm = np.linalg.norm(scaled)
    return np.rint(scaled * min(1.0, most / norm) if norm > 0 else scaled).astype(np.int64)


def each(family, weights, data, positive_weight=1.0):
    """Return every customer's gradient, shape (customers, parameters)."""
    features, labels, ids = data
    own = [ids == one for one in np.unique(ids)]
    return np.stack([own_gradient(family, weights, features[i], labels[i], positive_weight) for i in own])


def without(data, customer):
    keep = data[2] != customer
    return tuple(column[keep] for column in data)


def squares(vector):
    """Return the squared norm, in Python's own whole numbers."""
    return sum(int(value) ** 2 for value in vector)


def moves(lab, family, data, weights, **changes):
    """Return by how much the total moves, squared, when each customer is taken out."""
    whole = summed(lab, family, data, weights, **changes)
    others = (summed(lab, family, without(data, one), weights, **changes) for one in np.unique(data[2]))
    return [squares(whole - other) for other in others]


# --- what a customer adds -------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 7.3])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("units", [2**14, 2**20])
def test_the_total_is_the_sum_of_each_customer_s_own_clipped_gradient(lab, family, rows, weight, units):
    data, weights = lab.table(60, WIDTH, rows=rows, seed=8, scale=0.8), lab.start(family, WIDTH, HIDDEN)
    gradients = each(family, weights, data, weight)
    clip = float(np.median(np.linalg.norm(gradients, axis=1)))  # so that some are clipped and some are not
    own = np.stack([own_units(gradient, clip, units) for gradient in gradients])
    total = summed(lab, family, data, weights, positive_weight=weight, sensitivity=units, clip=clip)
    assert total.dtype == np.int64
    assert total.tolist() == own.sum(axis=0).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_total_is_what_the_trainer_releases_without_noise(lab, family):
    data, weights = lab.table(40, WIDTH, rows=3, seed=9), lab.start(family, WIDTH, HIDDEN)
    change, _ = Trainer(build(family, WIDTH, HIDDEN)).train(
        weights, Customers(*data), settings=lab.settings(clip=CLIP, sample_rate=0.5), steps=1, stream=lab.quiet("same")
    )
    total = Summer(build(family, WIDTH, HIDDEN)).total(
        weights, Customers(*data), settings=asked(sample_rate=0.5), stream=lab.quiet("same")
    )
    assert np.abs(total).max() > UNITS
    np.testing.assert_allclose(total * (CLIP / UNITS), -lab.flat(change), atol=40 * CLIP / UNITS)


def test_a_customer_s_weight_does_not_grow_with_its_rows(lab):
    features, labels, ids = lab.table(6, WIDTH, seed=10, scale=0.05)
    twice = np.vstack([features, features]), np.append(labels, labels), np.append(ids, ids)
    weights = lab.start("logistic", WIDTH)
    once = summed(lab, "logistic", (features, labels, ids), weights)
    assert np.abs(once - summed(lab, "logistic", twice, weights)).max() <= 1


# --- sensitivity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "least"), [(UNBOUND, 0.99), (UNITS, 0.1)])
@pytest.mark.parametrize("rows", [1, 10])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_customer_moves_the_total_by_more_than_the_sensitivity(lab, family, rows, bound, least):
    data, weights = lab.table(12, WIDTH, rows=rows, seed=7, scale=50.0), lab.start(family, WIDTH, HIDDEN)
    found = moves(lab, family, data, weights, bound=bound)
    assert max(found) <= UNITS**2
    assert (
        max(found) > (least * UNITS) ** 2
    )  # it is met, or nearly where sums are held back, so the check has something to see


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_huge_rows_of_one_customer_count_as_one_customer(lab, family):
    features, labels, ids = lab.table(8, WIDTH, seed=9)
    data = (
        np.vstack([features, np.full((10, WIDTH), 1e30, np.float32)]),
        np.append(labels, np.arange(10, dtype=np.float32) % 2),  # whatever the model says, half of it is wrong
        np.append(ids, np.full(10, 99)),
    )
    found = moves(lab, family, data, lab.start(family, WIDTH, HIDDEN), positive_weight=25.0)
    assert max(found) <= UNITS**2
    assert found[-1] > (0.99 * UNITS) ** 2  # customer 99 is the last


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_customer_whose_gradient_is_not_finite_adds_nothing_and_spoils_nothing(lab, family, value):
    data = features, labels, ids = lab.table(8, WIDTH, rows=2, seed=16)
    weights, spoilt = lab.start(family, WIDTH, HIDDEN), features.copy()
    spoilt[np.flatnonzero(ids == 3)[0], 1] = value
    total = summed(lab, family, (spoilt, labels, ids), weights)
    assert total.tolist() == summed(lab, family, without(data, 3), weights).tolist()


def test_the_greatest_features_there_are_add_no_more_than_the_sensitivity(lab):
    data = features, labels, ids = lab.table(8, WIDTH, seed=16)
    weights, huge = lab.start("logistic", WIDTH), features.copy()
    huge[ids == 3] = np.finfo(np.float32).max
    labels[ids == 3] = float(weights[0].sum() < 0)  # the model is wrong about it, as surely as can be
    moved = summed(lab, "logistic", (huge, labels, ids), weights) - summed(lab, "logistic", without(data, 3), weights)
    assert (0.99 * UNITS) ** 2 < squares(moved) <= UNITS**2


# --- rounding, and its verification ---------------------------------------------------------------------

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


def as_units(gradients, norms=None, clip=1.0, sensitivity=2**14):
    gradients = torch.from_numpy(np.asarray(gradients, dtype=np.float64))
    norms = gradients.square().sum(dim=1).sqrt() if norms is None else torch.from_numpy(np.asarray(norms, np.float64))
    return whole_numbers(gradients, norms, clip=clip, sensitivity=sensitivity).numpy()


@given(arrays(np.float64, (4, 6), elements=numbers), st.sampled_from([5e-324, 1e-300, 1e-3, 1.0, 1e6, 1e300]))
def test_any_gradient_becomes_whole_numbers_within_the_sensitivity(gradients, clip):
    found = as_units(gradients, clip=clip)
    assert max(squares(row) for row in found) <= 2**28
    assert not found[~np.isfinite(gradients).all(axis=1)].any()


@given(arrays(np.float64, (4, 6), elements=numbers), arrays(np.float64, 4, elements=numbers))
def test_the_verification_believes_no_norm(gradients, lies):
    assert max(squares(row) for row in as_units(gradients, norms=lies)) <= 2**28


def test_rounding_up_everywhere_keeps_the_sensitivity_and_the_customer():
    # Norm 2**14, every coordinate well above a half: rounding alone carries it over the edge.
    gradient = np.full((1, 390), 2**14 / math.sqrt(390))  # 829.63 each
    naive = np.rint(gradient[0]).astype(np.int64)
    assert squares(naive) > 2**28
    found = as_units(gradient, clip=2.0**14)[0]
    assert (2**14 - 2 * math.sqrt(390)) ** 2 < squares(found) <= 2**28


def test_a_vector_over_the_sensitivity_by_one_unit_is_zeros_and_one_on_it_is_not():
    at, over = [[3.0, 4.0]], [[3.0, 5.0]]
    loose = [1e-30]  # as if there was nothing to clip
    assert as_units(at, loose, clip=5.0, sensitivity=5).tolist() == [[3, 4]]
    assert as_units(over, loose, clip=5.0, sensitivity=5).tolist() == [[0, 0]]


def test_rounding_is_to_nearest_and_without_a_drift():
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=(3000, 300)) * 0.01
    found = as_units(gradients)
    exact = gradients * 2**14
    assert np.abs(found - exact).max() <= 0.5
    for axis in (0, 1):  # of a total, and of a customer
        drift = (found - exact).sum(axis=axis) / math.sqrt(gradients.shape[axis] / 12)
        assert abs(np.square(drift).mean() - 1) < 0.5
        assert abs(drift.mean()) * math.sqrt(len(drift)) < 5
        assert (np.floor(exact) - exact).sum(axis=axis).mean() < -0.4 * gradients.shape[axis]  # what it would see
    assert as_units([[0.5, 1.5, 2.5, -0.5, -1.5]], clip=2.0**14).tolist() == [[0, 2, 2, 0, -2]]


def test_totals_are_exact_where_float64_is_not():
    summer = Summer(build("logistic", 1, 1))
    optimizer = summer._optimizer
    optimizer.begin(asked(clip=1.0))
    optimizer._total += 2**60
    for parameter in optimizer.params:
        parameter.grad_sample = torch.full((3, *parameter.shape), 1.0 / UNITS, dtype=torch.float64)
    optimizer.clip_and_accumulate()
    assert (optimizer.total() - 2**60).tolist() == [3, 3]


# --- bounds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 1000, UNITS, 5 * UNITS])
def test_each_coordinate_of_the_total_is_held_within_the_bound(lab, bound):
    data, weights = lab.table(40, WIDTH, seed=5, scale=3.0), lab.start("mlp", WIDTH, HIDDEN)
    free = summed(lab, "mlp", data, weights)
    held = summed(lab, "mlp", data, weights, bound=bound)
    assert held.tolist() == [max(-bound, min(bound, int(value))) for value in free]
    assert np.abs(free).max() > UNITS


def test_the_bound_holds_the_total_and_no_part_of_it(lab, monkeypatch):
    monkeypatch.setattr(engine, "CELLS", 1)  # the smallest pieces
    features = np.repeat(np.array([[9.0] * WIDTH, [-9.0] * WIDTH], np.float32), 96, axis=0)
    data = features, np.ones(192, np.float32), np.arange(192)
    weights = np.zeros((1, WIDTH), np.float32), np.zeros(1, np.float32)
    total = summed(lab, "logistic", data, weights, bound=UNITS)
    assert total[:WIDTH].tolist() == [0] * WIDTH  # half of them one way, half back


# --- memory ---------------------------------------------------------------------------------------------


class Watched(Customers):
    """Customers that note who was asked for, and together with whom."""

    def __init__(self, *data):
        super().__init__(*data)
        self.seen = []

    def batch(self, chosen):
        self.seen.append(chosen)
        return super().batch(chosen)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_total_is_the_same_however_it_is_split(lab, monkeypatch, family, rows):
    data, weights = lab.table(300, WIDTH, rows=rows, seed=6), lab.start(family, WIDTH, HIDDEN)
    parameters, found, sizes = sum(w.size for w in weights), set(), set()
    each = (parameters + WIDTH) * rows
    for cells in (1, 130 * each, 200 * each, 2**20):
        monkeypatch.setattr(engine, "CELLS", cells)
        watched = Watched(*data)
        total = Summer(build(family, WIDTH, HIDDEN)).total(
            weights, watched, settings=asked(sensitivity=2**20, sample_rate=0.7), stream=lab.stream()
        )
        found.add(total.tobytes())
        sizes.add(max(len(chosen) for chosen in watched.seen))
    assert len(found) == 1
    assert {64, 128, 192} < sizes
    assert max(sizes) > 300  # the last was not split


# --- sampling -------------------------------------------------------------------------------------------

RATE, MEMBERS, TOTALS = 0.3, 24, 1200


def samples(lab, rate):
    """Return who was in which total, shape (totals, customers)."""
    watched, summer, stream = Watched(*lab.table(MEMBERS, 2, seed=15)), Summer(build("logistic", 2, 1)), lab.stream()
    seen = np.zeros((TOTALS, MEMBERS), bool)
    for row in seen:
        watched.seen.clear()
        summer.total(lab.start("logistic", 2), watched, settings=asked(sample_rate=rate), stream=stream)
        for chosen in watched.seen:
            row[chosen] = True
    return seen


def sampling_faults(seen, rate):
    """Return how sizes of samples and customers' shares in them differ from coins of the stated rate."""
    sizes = np.bincount(seen.sum(axis=1), minlength=MEMBERS + 1)
    expected = binom.pmf(np.arange(MEMBERS + 1), MEMBERS, rate) * len(seen)
    common = expected >= 5
    expected = np.append(expected[common], expected[~common].sum())
    observed = np.append(sizes[common], sizes[~common].sum())
    members = (seen.sum(axis=0) - len(seen) * rate) / math.sqrt(len(seen) * rate * (1 - rate))
    faults = []
    if chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1) < 1e-4:
        faults.append("sizes")
    if chi2.sf(np.square(members).sum(), MEMBERS) < 1e-4:
        faults.append("rates")
    return faults


def test_customers_enter_a_total_by_coins_of_the_stated_rate(lab):
    seen = samples(lab, RATE)
    assert sampling_faults(seen, RATE) == []
    assert sampling_faults(seen, 0.95 * RATE) != []  # the check sees coins that are a little off


def test_the_sample_is_the_trainer_s(lab):
    one, other = (Watched(*lab.table(50, WIDTH, seed=1)) for _ in range(2))
    weights = lab.start("logistic", WIDTH)
    Summer(build("logistic", WIDTH, 1)).total(weights, one, settings=asked(sample_rate=0.4), stream=lab.stream())
    Trainer(build("logistic", WIDTH, 1)).train(
        weights, other, settings=lab.settings(sample_rate=0.4), steps=1, stream=lab.stream()
    )
    assert np.concatenate(one.seen).tolist() == np.concatenate(other.seen).tolist()
    assert 0 < len(np.unique(np.concatenate(one.seen))) < 50


@pytest.mark.parametrize("members", [0, 10])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_sample_is_zeros(lab, family, members):
    features, labels, ids = lab.table(10, WIDTH, seed=14)
    weights = lab.start(family, WIDTH, HIDDEN)
    data = features[:members], labels[:members], ids[:members]
    total = summed(lab, family, data, weights, sample_rate=1e-12)
    assert total.tolist() == [0] * sum(w.size for w in weights)
    assert total.dtype == np.int64


# --- no noise, no steps ---------------------------------------------------------------------------------


def test_no_noise_is_drawn_whatever_the_multiplier(lab, monkeypatch):
    data, weights = lab.table(9, WIDTH, seed=2), lab.start("mlp", WIDTH, HIDDEN)
    expected = summed(lab, "mlp", data, weights).tolist()
    summer, stream = Summer(build("mlp", WIDTH, HIDDEN)), lab.stream()
    summer._optimizer.noise_multiplier = 100.0
    monkeypatch.setattr(stream, "normals", lambda count: pytest.fail("noise was drawn"))
    monkeypatch.setattr(torch, "normal", lambda *args, **kwargs: pytest.fail("noise was drawn"))
    total = summer.total(weights, Customers(*data), settings=asked(), stream=stream)
    assert total.tolist() == expected


def test_nobody_steps_along_a_sum_without_noise(lab):
    summer = Summer(build("logistic", WIDTH, 1))
    summer._optimizer.begin(asked())
    for parameter in summer._model.parameters():
        parameter.grad_sample = torch.ones((2, *parameter.shape), dtype=torch.float64)
    before = [parameter.detach().clone() for parameter in summer._model.parameters()]
    with pytest.raises(RuntimeError, match="never stepped along"):
        summer._optimizer.step()
    assert all((p == b).all() for p, b in zip(summer._model.parameters(), before, strict=True))


# --- one engine for every step --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_that_served_other_steps_sums_as_a_fresh_one_does(lab, family):
    weights, used = lab.start(family, WIDTH, HIDDEN), Summer(build(family, WIDTH, HIDDEN))
    for data, changes in [
        (lab.table(9, WIDTH, rows=3, seed=1), {"clip": 0.2, "sample_rate": 0.5}),
        (lab.table(30, WIDTH, seed=2), {"sensitivity": 2**20, "bound": 2**20}),
        (lab.table(4, WIDTH, rows=5, seed=3), {"sample_rate": 1e-9, "positive_weight": 4.0}),
        (lab.table(20, WIDTH, rows=2, seed=4), {"clip": 3.0}),
    ]:
        one = summed(lab, family, data, weights, summer=used, **changes)
        assert one.tolist() == summed(lab, family, data, weights, **changes).tolist()


def test_a_step_that_broke_off_leaves_no_trace_in_the_next(lab, monkeypatch):
    weights, data = lab.start("mlp", WIDTH, HIDDEN), lab.table(320, WIDTH, rows=2)
    monkeypatch.setattr(engine, "CELLS", 1)
    broken = Summer(build("mlp", WIDTH, HIDDEN))
    expected = summed(lab, "mlp", data, weights).tolist()
    with monkeypatch.context() as patch:
        real, calls = IntegerSumOptimizer.clip_and_accumulate, []

        def faulty(self):
            calls.append(1)
            if len(calls) == 4:
                raise MemoryError
            real(self)

        patch.setattr(IntegerSumOptimizer, "clip_and_accumulate", faulty)
        with pytest.raises(MemoryError):
            summed(lab, "mlp", data, weights, summer=broken)
    assert summed(lab, "mlp", data, weights, summer=broken).tolist() == expected


def test_nothing_of_a_customer_stays_in_the_engine(lab):
    summer = Summer(build("mlp", WIDTH, HIDDEN))
    summed(lab, "mlp", lab.table(12, WIDTH, rows=2), lab.start("mlp", WIDTH, HIDDEN), summer=summer)
    for parameter in summer._model.parameters():
        assert parameter.grad_sample is None
        assert parameter.grad is None
    assert not summer._optimizer._total.any()


# --- refusals -------------------------------------------------------------------------------------------


def test_rounding_that_takes_a_quarter_of_the_sensitivity_is_refused(lab):
    assert greatest_norm(2**14, 2**26) == 2**14 - 2**12  # exactly a quarter
    with pytest.raises(ValueError, match="want more units"):
        greatest_norm(2**14, 2**26 + 1)
    with pytest.raises(ValueError, match="want more units"):
        # Whoever is in the sample: also where nobody is.
        summed(lab, "mlp", lab.table(3, WIDTH), lab.start("mlp", WIDTH, HIDDEN), sensitivity=9, sample_rate=1e-12)


def test_sums_of_squares_that_take_more_than_64_bits_are_refused():
    assert greatest_norm(2**20, 2**23 - 1) > 0
    with pytest.raises(ValueError, match="64 bits"):
        greatest_norm(2**20, 2**23)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": math.nan},
        {"clip": math.inf},
        {"sensitivity": 0},
        {"sensitivity": 2**20 + 1},
        {"bound": 0},
        {"bound": 2**62 + 1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"the clip is|sensitivity is"):
        dataclasses.replace(asked(), **wrong)


# --- planted faults -------------------------------------------------------------------------------------


def plant(monkeypatch, faulty):
    monkeypatch.setattr(sums, "whole_numbers", faulty)


def test_an_engine_that_does_not_clip_loses_its_customers_and_keeps_the_sensitivity(lab, monkeypatch):
    data, weights = lab.table(12, WIDTH, seed=7, scale=50.0), lab.start("logistic", WIDTH)
    expected = sum(own_units(gradient) for gradient in each("logistic", weights, data))

    def faulty(gradients, norms, *, clip, sensitivity):
        return real_whole_numbers(gradients, torch.zeros_like(norms), clip=clip, sensitivity=sensitivity)

    plant(monkeypatch, faulty)
    assert summed(lab, "logistic", data, weights).tolist() != expected.tolist()
    assert max(moves(lab, "logistic", data, weights)) <= UNITS**2


def unclipped(gradients, norms, *, clip, sensitivity):
    return (gradients * (sensitivity / clip)).round().to(torch.int64)


def clipped_by_coordinate(gradients, norms, *, clip, sensitivity):
    return (gradients * (sensitivity / clip)).clamp(-sensitivity, sensitivity).round().to(torch.int64)


def clipped_together(gradients, norms, *, clip, sensitivity):
    whole = gradients.sum(dim=0, keepdim=True)
    return real_whole_numbers(whole, whole.norm(dim=1), clip=clip, sensitivity=sensitivity)


@pytest.mark.parametrize("faulty", [unclipped, clipped_by_coordinate, clipped_together])
def test_an_engine_that_does_not_clip_each_customer_is_rejected(lab, monkeypatch, faulty):
    # Two customers of opposite pull: taking one out turns a sum around that is clipped as a whole.
    features = np.array([[9.0] * WIDTH, [-4.0] * WIDTH], np.float32)
    data = features, np.ones(2, np.float32), np.arange(2)
    plant(monkeypatch, faulty)
    assert max(moves(lab, "logistic", data, lab.start("logistic", WIDTH))) > UNITS**2


def test_rows_taken_for_customers_are_rejected(lab, monkeypatch):
    real = Customers.__init__

    def faulty(self, features, labels, customer):
        real(self, features, labels, np.arange(len(customer)))

    monkeypatch.setattr(Customers, "__init__", faulty)
    data = lab.table(12, WIDTH, rows=10, seed=7, scale=50.0)
    assert max(moves(lab, "logistic", data, lab.start("logistic", WIDTH))) > UNITS**2
