"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest

from coterie.models.intervals import difference, interval


def test_an_interval_holds_the_truth_in_nineteen_of_twenty_samples():
    draw = np.random.default_rng(1)
    found = [interval(draw.random(200) < 0.4) for _ in range(1000)]
    held = sum(one.low <= 0.4 <= one.high for one in found)
    assert 925 <= held <= 970


def test_a_paired_difference_holds_the_truth_in_nineteen_of_twenty_samples():
    draw = np.random.default_rng(2)
    held = 0
    for seed in range(300):
        ease = draw.normal(size=150)
        one, other = ease + 0.1 + 0.3 * draw.normal(size=150), ease
        found = difference(one, other, seed=seed, samples=400)
        held += found.low <= 0.1 <= found.high
    assert 270 <= held <= 296


def test_pairing_takes_out_what_both_models_share():
    draw = np.random.default_rng(3)
    ease = draw.normal(size=400)
    found = difference(ease + 0.05, ease)
    assert found.low == pytest.approx(0.05)
    assert found.mean == pytest.approx(0.05)
    alone = interval(ease + 0.05)
    assert alone.low < 0 < alone.high


def test_the_same_public_seed_gives_the_same_interval():
    draw = np.random.default_rng(4)
    one, other = draw.random(90), draw.random(90)
    assert difference(one, other, seed=5) == difference(one, other, seed=5)
    assert difference(one, other, seed=5).low != difference(one, other, seed=6).low


def test_one_customer_says_nothing_and_nobody_is_no_error():
    assert interval(np.array([0.3])).high == np.inf
    assert np.isnan(interval(np.array([])).mean)
    assert np.isnan(difference(np.array([]), np.array([])).mean)


def test_values_of_different_customers_are_refused():
    with pytest.raises(ValueError, match="both values"):
        difference(np.zeros(3), np.zeros(4))
