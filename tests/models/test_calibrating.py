"""Calibration from noisy histograms against a general minimiser, and its standard errors against simulation."""

import numpy as np
import pytest
from scipy.optimize import minimize

from coterie.models.calibrating import CONSTANT, INTERCEPT, NONE, PLATT, Calibration, calibrated, fit
from coterie.models.influence import as_released
from coterie.models.metrics import exact_counts
from coterie.tests.models.noisyscores import binned, drawn, population, sampled


def minimised(logits, labels):
    """Platt's problem written out customer by customer, and left to a general minimiser."""
    many, few = labels.sum(), len(labels) - labels.sum()
    target = np.where(labels == 1, (many + 1) / (many + 2), 1 / (few + 2))

    def surprise(at):
        odds = at[0] * logits + at[1]
        return np.sum(np.logaddexp(0, odds) - target * odds)

    return minimize(surprise, [1.0, 0.0], method="BFGS", options={"gtol": 1e-7}).x


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.6, 0.8), (1.7, -1.0)])
def test_of_exact_scores_it_is_platt_scaling(slope, shift):
    logits, labels = drawn(3000, 1, slope=slope, shift=shift)
    found = fit(exact_counts(logits, labels), noise=0)
    assert found.kind == PLATT
    np.testing.assert_allclose([found.slope, found.intercept], minimised(logits, labels), atol=1e-4)


def test_errors_of_exact_scores_are_those_of_the_bootstrap():
    logits, labels = drawn(1500, 2, slope=0.7)
    found, rng = fit(exact_counts(logits, labels), noise=0), np.random.default_rng(3)
    draws = [rng.integers(0, 1500, 1500) for _ in range(300)]
    again = np.array([minimised(logits[draw], labels[draw]) for draw in draws])
    assert found.slope_error == pytest.approx(again[:, 0].std(), rel=0.25)
    assert found.intercept_error == pytest.approx(again[:, 1].std(), rel=0.25)
    assert found.covariance == pytest.approx(np.cov(again.T)[0, 1], rel=0.4)


@pytest.mark.parametrize("noise", [0.0, 8.0, 20.0])
def test_intervals_hold_the_populations_values_as_often_as_they_say(noise):
    shares, rng = population(slope=0.7, shift=0.4), np.random.default_rng(4)
    truth = fit(as_released(shares * 1e9), noise=0)
    found = [fit(sampled(shares, 12_000, noise, rng), noise=noise) for _ in range(400)]
    assert all(one.kind == PLATT for one in found)
    for name in ("slope", "intercept"):
        values = np.array([getattr(one, name) for one in found])
        errors = np.array([getattr(one, f"{name}_error") for one in found])
        inside = np.mean(np.abs(values - getattr(truth, name)) < 1.96 * errors)
        # Of 400 intervals of 95 %, 352 or fewer, or all of them, have odds below one in a million.
        assert 0.88 < inside < 1
        assert values.std() == pytest.approx(errors.mean(), rel=0.2)


def test_noise_adds_to_the_errors():
    counts = as_released(population() * 10_000)
    errors = [fit(counts, noise=noise).slope_error for noise in (0.0, 5.0, 10.0)]
    assert errors[0] < errors[1] < errors[2]
    # Variances add up, and that of noise grows with its square.
    squares = np.square(errors)
    assert squares[2] - squares[0] == pytest.approx(4 * (squares[1] - squares[0]), rel=1e-6)


def test_with_too_little_signal_for_a_slope_only_the_level_is_corrected():
    shares, rng = population(slope=1.0, shift=0.8), np.random.default_rng(5)
    found = [fit(sampled(shares, 10_000, 45.0, rng), noise=45.0) for _ in range(100)]
    assert {one.kind for one in found} == {INTERCEPT}
    assert {(one.slope, one.slope_error) for one in found} == {(1.0, 0.0)}
    values = np.array([one.intercept for one in found])
    assert values.mean() == pytest.approx(0.8, abs=6 * values.std() / 10 + 0.02)
    assert values.std() == pytest.approx(np.mean([one.intercept_error for one in found]), rel=0.4)


@pytest.mark.parametrize("histogram", [np.zeros((2, 24)), np.full((2, 24), -3.0), np.full((2, 24), 5.0)])
def test_what_is_lost_in_the_noise_is_left_as_it_is(histogram):
    assert fit(as_released(histogram), noise=50.0) == Calibration(NONE, 1.0, 0.0, 0.0, 0.0, 0.0)


def test_of_counts_of_noise_alone_nothing_is_believed():
    rng = np.random.default_rng(6)
    for _ in range(200):
        found = fit(as_released(rng.normal(0, 30, (2, 24))), noise=30.0)
        assert found.kind != PLATT
        assert np.isfinite([found.slope, found.intercept, found.intercept_error]).all()


def test_scores_that_rank_the_wrong_way_are_held_constant_at_the_rate():
    logits, labels = drawn(8000, 7, slope=-0.5, shift=-0.5)
    found = fit(as_released(binned(logits, labels)), noise=2.0)
    assert (found.kind, found.slope) == (CONSTANT, 0.0)
    rate = labels.mean()
    assert found.intercept == pytest.approx(np.log(rate / (1 - rate)), abs=1e-3)


def test_separated_scores_stay_finite():
    histogram = np.zeros((2, 24))
    histogram[0, :12] = histogram[1, 12:] = 200
    found = fit(as_released(histogram), noise=0)
    assert np.isfinite([found.slope, found.intercept, found.slope_error]).all()
    assert found.slope >= 0


def test_corrected_scores_say_what_is_observed():
    logits, labels = drawn(60_000, 8, slope=0.6, shift=0.5)
    found = fit(as_released(binned(logits, labels)), noise=5.0)
    fresh, outcome = drawn(60_000, 9, slope=0.6, shift=0.5)
    odds = calibrated(fresh, found)
    assert odds.shape == fresh.shape
    for tenth in np.array_split(np.argsort(fresh), 10):
        predicted = 1 / (1 + np.exp(-odds[tenth]))
        spread = (predicted.mean() / len(tenth)) ** 0.5
        assert outcome[tenth].mean() == pytest.approx(predicted.mean(), abs=5 * spread + 0.01)


@pytest.mark.parametrize("noise", [-1.0, np.inf, np.nan])
def test_a_noise_that_cannot_be_is_refused(noise):
    with pytest.raises(ValueError, match=r"noise must be in \[0, infinity\)"):
        fit(as_released(np.full((2, 24), 100.0)), noise=noise)
