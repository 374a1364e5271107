"""Popularity: what is kept of it, its scale, and that order never changes."""

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.recommenders.popularity import kept_items, places, popularity_scores, shares, smoothed
from coterie.models.recommenders.settings import Recommender


def settings(**changes):
    return Recommender(**{"family": "popularity", "items": 5, "keep": 3, "exponent": 0.5, **changes})


def of(*items):
    starts = np.cumsum([0, *(len(own) for own in items)])
    flat = np.array([item for own in items for item in own], dtype=np.int64)
    return Histories(starts, flat, np.zeros(len(flat), dtype=np.int64))


def test_the_most_popular_items_are_kept_and_ties_go_to_the_earlier_one():
    index, scale = kept_items(np.array([0.1, 0.4, 0.1, -0.2, 0.1], dtype=np.float32), settings())
    assert index.tolist() == [1, 0, 2]
    assert scale == pytest.approx([1.0, 2.0, 2.0])


def test_items_below_a_hundredth_of_the_greatest_are_scaled_as_if_they_had_it():
    _, scale = kept_items(np.array([1.0, -3.0, 1e-9], dtype=np.float32), settings(items=3))
    assert scale == pytest.approx([1.0, 10.0, 10.0])


@pytest.mark.parametrize("mean", [[0.0] * 5, [-1.0] * 5, [0.0, -1.0, -2.0, 0.0, -3.0]])
def test_a_release_in_which_nothing_is_above_zero_still_keeps_items_at_a_plain_scale(mean):
    index, scale = kept_items(np.array(mean, dtype=np.float32), settings())
    assert len(set(index.tolist())) == 3
    assert scale.tolist() == [1.0, 1.0, 1.0]


def test_no_more_items_are_kept_than_there_are():
    index, scale = kept_items(np.array([0.5], dtype=np.float32), settings(items=1))
    assert (index.tolist(), scale.tolist()) == ([0], [1.0])


def test_places_turn_the_kept_items_round():
    assert places(np.array([3, 0]), 5).tolist() == [1, -1, -1, 0, -1]


def test_smoothing_makes_a_mean_positive_keeps_its_order_and_what_is_far_above_the_noise():
    mean = np.array([0.5, 0.01, 0.0, -0.01, -0.02, -0.5])
    positive = smoothed(mean, noise=0.01)
    assert (positive > 0).all()
    assert (np.diff(positive) < 0).all()
    assert positive[0] == pytest.approx(0.5, abs=3e-4)
    assert positive[2] == pytest.approx(0.01)
    assert positive == pytest.approx((mean + np.sqrt(mean**2 + 4e-4)) / 2, rel=1e-4)


def test_smoothing_without_noise_is_the_mean_itself_held_above_zero():
    assert smoothed(np.array([0.5, 0.0, -0.5]), noise=0.0).tolist() == [0.5, 0.0, 0.0]


def test_everybody_gets_the_logarithm_of_popularity_whatever_its_history():
    weights = (np.array([0.5, 1.0, 0.25, -1.0, 0.0], dtype=np.float32),)
    scores = popularity_scores(settings(), weights, of([0, 1], [], [4]))
    assert scores.dtype == np.float32
    assert scores.shape == (3, 5)
    assert scores[0] == pytest.approx([np.log(0.5), 0.0, np.log(0.25), np.log(1e-4), np.log(1e-4)])
    assert scores.tolist() == [scores[0].tolist()] * 3
    assert popularity_scores(settings(), weights, of()).shape == (0, 5)


def test_shares_are_of_the_greatest_and_no_less_than_the_floor():
    assert shares(np.array([2.0, 1.0, 0.0], dtype=np.float32), least=0.1).tolist() == [1.0, 0.5, 0.1]
