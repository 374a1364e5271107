"""A partner's sums on private bins: what its rows say, under either trust, and the noise that is charged for."""

import math
import shutil

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from coterie.clients import ownsums
from coterie.clients.binnedsums import BinnedCustomers, binned_total
from coterie.clients.predicting import layout_for, logits_of, row_logits
from coterie.clients.task import binning_of, initial_weights
from coterie.models import propensity
from coterie.models.binning import one_hot, slots_of
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.randomness import SeededSource
from coterie.privacy.sums import numbers_of
from coterie.tests.clients.binnedkit import BINS, Binned, binned, changed, own_cells, shares_of, table_of, without_noise
from coterie.tests.clients.summing import FOUR, quick_folder

FINE = {"most": 256, "cells": 256}  # some five hundred cells and slots: half the noise would be seen
PLANS = {trust: binned("additive", trust, bins=changed(BINS, **FINE)) for trust in ("local", "secure-aggregation")}
RARE = 1e-6  # how often a right law may be called wrong, on either side
SOURCE = SeededSource(b"bins")


def indicators(plan, weights, cells):
    """Rows as the matrix that a plain module takes."""
    layout = layout_for(plan, weights)
    return one_hot(slots_of(layout, cells), layout.binning.slots)


@pytest.fixture(scope="module")
def made():
    with quick_folder() as folder:
        federations = {trust: Binned(folder / trust, plan).consent() for trust, plan in PLANS.items()}
        secure = federations["secure-aggregation"]
        secure.set_up(1, ("count/1",))
        counted = secure.copied(folder / "counted")
        counted.set_up(2, ("train/1", "train/2", "train/3"))
        yield {**federations, "counted": counted}


@pytest.fixture
def begin(made):
    copies = []

    def copy(label):
        template = made[label]
        copies.append(template.copied(template.root.with_name(f"copy-{len(copies)}")))
        return copies[-1]

    yield copy
    for one in copies:
        shutil.rmtree(one.root)


def weights_for(plan):
    """A model with counts of a table, and weights of nought: every residual is a half."""
    counts = shares_of([own_cells(plan, row) for row in table_of("amber", 200).to_pylist()], binning_of(plan).cells)
    return counts.astype(np.float32), *initial_weights(plan)[1:]


def plain_sum(federation, step, names=FOUR):
    """The sum over the training customers, one row each, by plain Python."""
    plan, numbers = federation.plan, numbers_of(federation.plan, step)
    layout = layout_for(plan, weights_for(plan))
    total = [0] * (binning_of(plan).cells if step == "count/1" else binning_of(plan).slots + 1)
    for name in names:
        training, _ = federation.divided(table_of(name), name)
        assert 40 < len(training) < 80
        for row in training:
            cells = own_cells(plan, row)
            if step == "count/1":
                places, value = cells, math.isqrt(numbers.sensitivity**2 // 3)
            else:
                places = [*slots_of(layout, np.array([cells]))[0].tolist(), -1]
                half = math.trunc(numbers.sensitivity / plan.training.clip / 2)
                assert half <= math.isqrt(numbers.sensitivity**2 // 4)
                value = -half if row["bought"] else half
            for place in places:
                total[place] += value
    return np.array(total)


def opened(federation, step):
    """What all four partners' sums of a step open to, under either trust."""
    weights = weights_for(federation.plan)
    if federation.plan.privacy.trust == "local":
        answers = [federation.answer(step, name=name, weights=weights).arrays[0] for name in FOUR]
        return np.sum(answers, axis=0)
    about = federation.about
    federation.about = lambda *args, **changes: about(*args, **{"weights": weights, **changes})
    return federation.open(step).total


def ready(begin, trust, step):
    return begin("counted" if trust == "secure-aggregation" and step != "count/1" else trust)


def law_faults(noise, scale):
    """How noise differs from independent draws of N_Z(0, scale^2), of which squares add up as those of a Gaussian."""
    faults, squares = [], float((noise.astype(float) ** 2).sum()) / scale**2
    low, high = stats.chi2(len(noise)).ppf([RARE, 1 - RARE])
    if not low < squares < high:
        faults.append("size")
    if stats.kstest(noise / scale, "norm").pvalue < RARE:
        faults.append("shape")
    return faults


# --- what sums are, and their noise -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["count/1", "train/1"])
@pytest.mark.parametrize("trust", PLANS)
def test_without_noise_what_is_opened_is_the_plain_sum_over_the_tables(begin, monkeypatch, trust, step):
    federation = ready(begin, trust, step)
    without_noise(monkeypatch)
    assert opened(federation, step).tolist() == plain_sum(federation, step).tolist()


@pytest.mark.parametrize("step", ["count/1", "train/1"])
@pytest.mark.parametrize("trust", PLANS)
def test_what_is_opened_less_the_plain_sum_is_discrete_gaussian_noise_of_every_partner(begin, trust, step):
    federation = ready(begin, trust, step)
    noise = opened(federation, step) - plain_sum(federation, step)
    assert noise.dtype == np.int64
    assert len(noise) > 500
    share = numbers_of(federation.plan, step).share
    assert law_faults(noise, 2 * share) == []  # of four partners
    assert law_faults(noise // 2, 2 * share) == ["size", "shape"]
    event = federation.reservations()[0].charge.event
    made = calibrate(federation.plan)
    assert event == (made.counting if step == "count/1" else made.update)


def test_a_partner_that_adds_half_the_noise_is_seen(begin, monkeypatch):
    federation, real = begin("local"), ownsums.discrete_gaussians
    monkeypatch.setattr(ownsums, "discrete_gaussians", lambda scale, *more: real(scale // 2, *more))
    noise = opened(federation, "count/1") - plain_sum(federation, "count/1")
    assert "size" in law_faults(noise, 2 * numbers_of(federation.plan, "count/1").share)


def test_every_sum_is_charged_to_whom_it_is_about_with_its_own_event(begin):
    federation = begin("local")
    for step in ("count/1", "train/1", "evaluate/1"):
        federation.answer(step, weights=weights_for(federation.plan))
    made = calibrate(federation.plan)
    assert [(r.charge.step, r.charge.group, r.charge.event) for r in federation.reservations()] == [
        ("count/1", TRAINING, made.counting),
        ("train/1", TRAINING, made.update),
        ("evaluate/1", HOLDOUT, made.histogram),
    ]
    assert all(r.settled for r in federation.reservations())


# --- gradients of every family ------------------------------------------------------------------------------------


def autograd(module, rows, labels, weight):
    """A customer's gradient: of the mean over its rows of the weighted log-loss."""
    module.zero_grad()
    logits = module(torch.from_numpy(rows))[:, 0]
    losses = [
        functional.softplus(-one) * weight if label else functional.softplus(one)
        for one, label in zip(logits, labels.tolist(), strict=True)
    ]
    (torch.stack(losses).sum() / len(losses)).backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()]).double().numpy()


def some_customers(plan, count=30, rows=3):
    draw = np.random.default_rng(4)
    customer = np.sort(draw.permutation(np.repeat(np.arange(count), draw.integers(1, rows + 1, count))))
    cells = np.stack([draw.integers(s.start, s.stop, len(customer)) for s in binning_of(plan).cell_spans()], axis=1)
    return BinnedCustomers(cells, draw.integers(0, 2, len(customer)).astype(np.float32), customer)


@pytest.mark.parametrize("positive_weight", [1.0, 2.5])
@pytest.mark.parametrize("family", ["additive", "logistic", "mlp"])
def test_gradients_that_are_not_clipped_are_those_of_autograd_customer_by_customer(family, positive_weight):
    pairs = changed(BINS, pairs=("age * region",))
    plan = binned(
        family,
        bins=pairs,
        contract__rows_per_customer=3,
        training__clip=20.0,
        training__positive_weight=positive_weight,
    )
    draw = np.random.default_rng(5)
    weights = tuple((array + 0.3 * draw.normal(size=array.shape)).astype(np.float32) for array in initial_weights(plan))
    mine, numbers = some_customers(plan), numbers_of(plan, "train/1")
    found = binned_total(plan, "train/1", weights, mine, numbers=numbers, stream=SOURCE.stream("x"))
    features = indicators(plan, weights, mine.cells)
    module = propensity.build(family, features.shape[1], plan.model.hidden)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights[1:], strict=True):
            parameter.copy_(torch.from_numpy(value))
    wanted = sum(
        autograd(module, features[mine.customer == one], mine.labels[mine.customer == one], positive_weight)
        for one in np.unique(mine.customer)
    )
    unit = plan.training.clip / numbers.sensitivity
    np.testing.assert_allclose(found * unit, wanted, atol=len(mine.labels) * unit + 2e-5)
    assert np.abs(wanted).max() > 1


@pytest.mark.parametrize("family", ["additive", "logistic", "mlp"])
def test_a_row_scores_the_same_bit_for_bit_alone_and_among_others(family):
    plan = binned(family, bins=changed(BINS, pairs=("age * region",)))
    draw = np.random.default_rng(6)
    weights = tuple(draw.normal(size=array.shape).astype(np.float32) for array in initial_weights(plan))
    cells = some_customers(plan, 200, 1).cells
    together = row_logits(plan, weights, cells)
    for row in range(0, 200, 17):
        assert row_logits(plan, weights, cells[row : row + 1]).tobytes() == together[row : row + 1].tobytes()
    dense = propensity.logits(family, plan.model.hidden, weights[1:], indicators(plan, weights, cells))
    np.testing.assert_allclose(logits_of(plan, weights, cells), dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["additive", "logistic", "mlp"])
def test_one_customer_moves_a_sum_by_no_more_than_the_sensitivity(family):
    plan = binned(family, contract__rows_per_customer=3, training__clip=0.05, training__positive_weight=50.0)
    numbers, everybody = numbers_of(plan, "train/1"), some_customers(plan, 12)
    weights = (weights_for(plan)[0], *(array + np.float32(3.0) for array in initial_weights(plan)[1:]))
    for step in ("count/1", "train/1"):
        totals = []
        for left_out in (None, *range(12)):
            kept = everybody.customer != left_out
            part = BinnedCustomers(everybody.cells[kept], everybody.labels[kept], everybody.customer[kept])
            totals.append(binned_total(plan, step, weights, part, numbers=numbers, stream=SOURCE.stream("x")))
        lengths = [sum(int(value) ** 2 for value in totals[0] - one) for one in totals[1:]]
        assert 0.9 * numbers.sensitivity**2 < max(lengths) <= numbers.sensitivity**2


def test_customers_rows_say_nothing_of_themselves():
    assert repr(some_customers(binned())) == "BinnedCustomers(...)"
