"""Recency: weights that halve with every so many newer items."""

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.recommenders.recency import faded

HISTORIES = Histories(np.array([0, 3, 3, 4]), np.array([5, 6, 7, 8]), np.array([1, 1, 900, 2]))


def test_the_newest_item_has_weight_one_and_those_before_it_halve():
    assert faded(HISTORIES, 1.0).tolist() == [0.25, 0.5, 1.0, 1.0]
    assert faded(HISTORIES, 2.0) == pytest.approx([0.5, 2**-0.5, 1.0, 1.0])


def test_without_a_half_life_all_items_weigh_the_same():
    assert faded(HISTORIES, 0.0).tolist() == [1.0] * 4


def test_an_item_that_is_very_old_keeps_a_weight():
    old = Histories(np.array([0, 5000]), np.arange(5000), np.zeros(5000, dtype=np.int64))
    assert faded(old, 0.5).min() > 0


@pytest.mark.parametrize("half_life", [-1.0, float("nan")])
def test_a_half_life_below_zero_is_refused(half_life):
    with pytest.raises(ValueError, match="at least 0"):
        faded(HISTORIES, half_life)
