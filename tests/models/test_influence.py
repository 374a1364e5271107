"""Histograms as they were released, and the delta method's pieces."""

import numpy as np
import pytest

from coterie.models.influence import as_released, enough, estimated, spread


def test_counts_are_left_as_they_were_released():
    histogram = np.array([[-3, 5, 0], [2, -1, 7]])
    counts = as_released(histogram)
    assert counts.negatives.tolist() == [-3, 5, 0]
    assert counts.positives.tolist() == [2, -1, 7]
    # Bins of equal width in log-odds from -6 to 6.
    np.testing.assert_allclose(counts.predicted, 1 / (1 + np.exp([4.0, 0.0, -4.0])))


@pytest.mark.parametrize(
    "histogram", [np.zeros(5), np.zeros((4, 5)), np.zeros((2, 1)), np.full((2, 5), np.nan), np.full((2, 5), np.inf)]
)
def test_what_is_no_histogram_is_refused(histogram):
    with pytest.raises(ValueError, match=r"shape \(2, bins\)|finite"):
        as_released(histogram)


def test_a_mean_has_the_spread_of_its_sampling_and_noise():
    rng, counts = np.random.default_rng(1), np.array([[300.0, 100.0, 50.0], [20.0, 60.0, 70.0]])
    worth, noise = np.array([0.0, 1.0, 3.0]), 6.0
    mean = (worth * counts).sum() / counts.sum()
    influence = (worth - mean) / counts.sum()
    said = spread(influence, influence, counts=as_released(counts), noise=noise)
    draws = rng.poisson(counts, (20_000, 2, 3)) + rng.normal(0, noise, (20_000, 2, 3))
    seen = (worth * draws).sum(axis=(1, 2)) / draws.sum(axis=(1, 2))
    assert seen.std() == pytest.approx(said, rel=0.05)


def test_counts_below_zero_leave_the_noise_in_the_spread():
    counts = as_released(np.full((2, 3), -40.0))
    one = np.array([1.0, 0.0, 0.0])
    assert spread(one, 0 * one, counts=counts, noise=7.0) == pytest.approx(7.0)


def test_a_sum_is_enough_where_it_stands_clear_of_its_noise():
    assert enough(np.full(24, 1.0), 0.0)
    assert not enough(np.full(9, 1.0), 0.0)  # fewer than ten
    assert enough(np.full(25, 20.1), 25.0)  # 4 * 25 * 5 = 500
    assert not enough(np.full(25, 19.9), 25.0)
    rng = np.random.default_rng(2)
    assert sum(enough(rng.normal(0, 10, 24), 10.0) for _ in range(1000)) <= 3


def test_intervals_are_cut_to_what_can_be():
    one = estimated(0.9, 0.1, within=(0.0, 1.0))
    assert (one.value, one.high, one.error) == (0.9, 1.0, 0.1)
    assert one.low == pytest.approx(0.9 - 0.196, abs=1e-4)
    assert estimated(1.2, 0.1, within=(0.0, 1.0)).value == 1.0
