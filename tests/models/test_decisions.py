"""Decisions from held-out counts against the customers themselves, and their intervals against simulation."""

import numpy as np
import pytest

from coterie.models.decisions import best_contact, contact, profit_curve
from coterie.models.depths import Depths, borders, shares_above
from coterie.models.influence import as_released
from coterie.models.metrics import exact_counts, lift_curve
from coterie.tests.models.noisyscores import binned, drawn, population, sampled

SHARES = (0.05, 0.1, 0.3, 0.5)


@pytest.mark.parametrize("share", SHARES)
def test_a_budgets_row_is_what_contacting_the_best_customers_brings(share):
    logits, labels = drawn(2000, 1)
    found = contact(exact_counts(logits, labels), share, noise=0)
    contacted = logits >= found.threshold.value
    assert contacted.sum() == round(share * 2000)
    assert found.conversions.value == pytest.approx(labels[contacted].sum() / labels.sum())
    assert found.rate.value == pytest.approx(labels[contacted].mean())
    assert found.lift.value == pytest.approx(labels[contacted].mean() / labels.mean())


def test_lift_is_that_of_the_curve():
    counts = exact_counts(*drawn(3000, 2))
    for depth, lift in lift_curve(counts):
        assert contact(counts, depth, noise=0).lift.value == pytest.approx(lift)


def test_everybody_is_contacted_at_a_share_of_one():
    logits, labels = drawn(500, 3)
    found = contact(exact_counts(logits, labels), 1.0, noise=0)
    assert found.threshold.value < logits.min()
    assert (found.conversions.value, found.lift.value) == pytest.approx((1.0, 1.0))
    assert found.rate.value == pytest.approx(labels.mean())
    assert found.conversions.error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("share", SHARES)
def test_bins_move_a_threshold_by_less_than_their_width(share):
    logits, labels = drawn(20_000, 4)
    exact = contact(exact_counts(logits, labels), share, noise=0)
    coarse = contact(as_released(binned(logits, labels)), share, noise=0)
    assert coarse.threshold.value == pytest.approx(exact.threshold.value, abs=0.1)
    assert coarse.lift.value == pytest.approx(exact.lift.value, rel=0.03)


@pytest.mark.parametrize("noise", [0.0, 6.0, 25.0])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_intervals_of_a_budget_hold_the_truth_as_often_as_they_say(share, noise):
    shares, rng = population(), np.random.default_rng(5)
    truth = contact(as_released(shares * 1e9), share, noise=0)
    found = [contact(sampled(shares, 10_000, noise, rng), share, noise=noise) for _ in range(400)]
    for name in ("conversions", "lift", "rate"):
        pairs = [(getattr(one, name), getattr(truth, name).value) for one in found]
        # Of 400 intervals of 95 %, 352 or fewer, or all of them, have odds below one in a million.
        assert 0.88 < np.mean([one.low <= true <= one.high for one, true in pairs]) < 1
        values, errors = np.array([one.value for one, _ in pairs]), np.array([one.error for one, _ in pairs])
        assert values.mean() == pytest.approx(pairs[0][1], abs=0.3 * errors.mean())
        assert values.std() == pytest.approx(errors.mean(), rel=0.2)
    thresholds = np.array([one.threshold.value for one in found])
    said = np.mean([one.threshold.error for one in found])
    assert thresholds.std() == pytest.approx(said, rel=0.25)


def expected(logits, labels, threshold, value, cost):
    """Profit per customer, customer by customer."""
    contacted = logits >= threshold
    return float(np.mean(contacted * (value * labels - cost)))


def test_profit_is_value_less_cost_over_those_contacted():
    logits, labels = drawn(400, 6)
    curve = profit_curve(exact_counts(logits, labels), 7.0, cost=2.0, noise=0)
    assert len(curve) == 401
    for one in curve:
        assert one.profit.value == pytest.approx(expected(logits, labels, one.threshold.value, 7.0, 2.0))
        assert one.share.value == pytest.approx(np.mean(logits >= one.threshold.value))


@pytest.mark.parametrize(("value", "cost"), [(3.0, 1.0), (10.0, 1.0), (1.2, 1.0), (50.0, 1.0), (5.0, 25.0)])
def test_the_most_profitable_threshold_is_the_best_of_all(value, cost):
    logits, labels = drawn(400, 7)
    best = best_contact(exact_counts(logits, labels), value, cost=cost, noise=0)
    every = [expected(logits, labels, at, value, cost) for at in (*logits, np.inf)]
    assert best.profit.value == pytest.approx(max(every), abs=1e-12)
    assert best.threshold.low <= best.threshold.value <= best.threshold.high


def test_nobody_is_contacted_where_a_contact_never_pays():
    best = best_contact(as_released(binned(*drawn(5000, 8))), 1.0, cost=2.0, noise=3.0)
    assert best.threshold.value == np.inf
    assert (best.share.value, best.profit.value, best.profit.error) == (0, 0, 0)


def test_everybody_is_contacted_where_a_contact_costs_next_to_nothing():
    best = best_contact(as_released(binned(*drawn(5000, 8, mean=0.0, width=0.8))), 1.0, cost=1e-6, noise=2.0)
    assert best.share.value > 0.99
    assert best.threshold.low == -np.inf


@pytest.mark.parametrize("noise", [0.0, 6.0, 25.0])
def test_intervals_of_the_best_hold_the_truth_as_often_as_they_say(noise):
    shares, rng = population(), np.random.default_rng(9)
    everybody = as_released(shares * 1e9)
    truth = {one.threshold.value: one.profit.value for one in profit_curve(everybody, 5.0, cost=1.0, noise=0)}
    where = best_contact(everybody, 5.0, cost=1.0, noise=0).threshold.value
    found = [best_contact(sampled(shares, 10_000, noise, rng), 5.0, cost=1.0, noise=noise) for _ in range(300)]
    assert np.mean([one.profit.low <= truth[one.threshold.value] <= one.profit.high for one in found]) > 0.86
    # The best threshold is looked for at borders alone, so that its range, which allows for that, is a wide one.
    assert np.mean([one.threshold.low <= where <= one.threshold.high for one in found]) > 0.97


def test_noise_dents_no_threshold():
    rng, shares = np.random.default_rng(10), population()
    for _ in range(30):
        counts = sampled(shares, 10_000, 30.0, rng)
        assert (counts.negatives < 0).any()
        rows = [contact(counts, share, noise=30.0) for share in SHARES]
        thresholds = [one.threshold.value for one in rows]
        assert thresholds == sorted(thresholds, reverse=True)
        assert all(0 <= one.conversions.low <= one.conversions.high <= 1 for one in rows)


def test_depths_rise_and_are_the_nearest_that_do():
    counts = as_released(np.array([[60.0, 30.0, -40.0, 50.0, 0.0], [40.0, 10.0, 0.0, 10.0, 0.0]]))
    # From the best score down 0, 0, 60, 20, 60, 160: the dent is filled with what fits it best.
    found = Depths.of(counts, 0.0).depth[::-1]
    np.testing.assert_allclose(found, [0, 0, 40, 40, 60, 160])


def test_bins_meet_half_way_and_are_cut_in_proportion():
    edges = borders(as_released(np.zeros((2, 6))).predicted)
    np.testing.assert_allclose(edges, [-6, -4, -2, 0, 2, 4, 6], atol=1e-9)
    np.testing.assert_allclose(shares_above(edges, 0.5), [0, 0, 0, 0.75, 1, 1], atol=1e-9)


@pytest.mark.parametrize("predicted", [[0.5], [0.5, 0.5], [0.6, 0.4], [0.0, 0.5], [0.5, 1.0]])
def test_bins_that_do_not_ascend_are_refused(predicted):
    with pytest.raises(ValueError, match="ascend"):
        borders(np.array(predicted))


def test_what_is_lost_in_the_noise_is_not_told():
    rng = np.random.default_rng(11)
    lost = as_released(rng.normal(0, 20, (2, 24)))
    assert contact(lost, 0.1, noise=20.0) is None
    assert best_contact(lost, 5.0, cost=1.0, noise=20.0) is None
    assert profit_curve(lost, 5.0, cost=1.0, noise=20.0) == ()
    assert contact(as_released(np.zeros((2, 24))), 0.1, noise=0.0) is None


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, np.nan])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ValueError, match=r"share to contact must be in \(0, 1\]"):
        contact(as_released(np.full((2, 24), 50.0)), share, noise=1.0)


@pytest.mark.parametrize(("value", "cost"), [(0, 1), (1, 0), (-1, 1), (np.inf, 1), (1, np.nan)])
def test_a_value_or_cost_that_cannot_be_is_refused(value, cost):
    counts = as_released(np.full((2, 24), 50.0))
    for ask in (best_contact, profit_curve):
        with pytest.raises(ValueError, match=r"must be in \(0, infinity\)"):
            ask(counts, value, cost=cost, noise=1.0)


@pytest.mark.parametrize("noise", [-1.0, np.inf, np.nan])
def test_a_noise_that_cannot_be_is_refused(noise):
    with pytest.raises(ValueError, match=r"noise must be in \[0, infinity\)"):
        contact(as_released(np.full((2, 24), 50.0)), 0.1, noise=noise)
