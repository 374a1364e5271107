"""Exposure and groups against counts by hand."""

import numpy as np
import pytest

from coterie.models.rankbias import coverage, exposure, exposure_by_group, gini, novelty, quality_by_group

LISTS = np.array([[0, 1], [0, 2], [0, -1], [-1, -1]])


def test_exposure_counts_lists_and_knows_short_ones():
    shown = exposure(LISTS, 4)
    assert shown.tolist() == [3, 1, 1, 0]
    assert coverage(shown) == 0.75


def test_gini_is_half_the_mean_difference_between_items_over_the_mean():
    for shown in ([3, 1, 1, 0], [0, 0, 0, 9], [5, 2, 8, 1]):
        values = np.array(shown, dtype=float)
        gaps = np.abs(values[:, None] - values[None]).mean()
        assert gini(np.array(shown)) == pytest.approx(gaps / 2 / values.mean())
    assert gini(np.array([2, 2, 2])) == pytest.approx(0)
    assert gini(np.zeros(3, np.int64)) == 0


def test_novelty_is_bits_and_a_share_below_the_least_is_taken_for_it():
    shares = np.array([0.5, 0.25, -0.1, 0.2])
    assert novelty(LISTS, shares, least=1 / 16) == pytest.approx((3 * 1 + 2 + 4) / 5)
    assert np.isnan(novelty(np.full((2, 2), -1), shares, least=0.1))


def test_quality_by_group_is_each_group_s_own_mean_and_interval():
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.5])
    found = quality_by_group(values, ["b", "a", "b", "a", "b"])
    assert list(found) == ["a", "b"]
    assert (found["a"].mean, found["a"].customers) == (0.5, 2)
    assert found["b"].mean == pytest.approx(5 / 6)
    half = 1.959963985 * np.std([1, 1, 0.5], ddof=1) / 3**0.5
    assert found["b"].high - found["b"].mean == pytest.approx(half)


def test_exposure_by_group_compares_three_shares():
    found = exposure_by_group(exposure(LISTS, 4), np.array([2.0, 2.0, 4.0, -1.0]), ["x", "y", "x", "y"])
    assert (found["x"].catalogue, found["x"].popularity, found["x"].exposure) == pytest.approx((0.5, 0.75, 0.8))
    assert (found["y"].catalogue, found["y"].popularity, found["y"].exposure) == pytest.approx((0.5, 0.25, 0.2))


def test_groups_for_other_customers_are_refused():
    with pytest.raises(ValueError, match="2 groups for 3 values"):
        quality_by_group(np.zeros(3), ["a", "b"])
