"""The rule behind `family = "auto"`, and when a model falls back to popularity."""

import math

import numpy as np
import pytest

from coterie.models.recommenders.choice import chosen_family, falls_back
from coterie.models.recommenders.settings import FAMILIES


@pytest.mark.parametrize(
    ("customers", "items", "epsilon", "family"),
    [
        (1_000, 1_700, 1.0, "popularity"),
        (1_000, 1_700, 2.0, "item-gram"),
        (20_000, 1_300, 0.5, "item-gram"),
        (100, 1_000, math.inf, "item-gram"),
        (10, 1_000, math.inf, "popularity"),
        (1_000_000, 1_000_000, 4.0, "two-tower"),
        (100, 1_000_000, 1.0, "popularity"),
    ],
)
def test_the_rule_chooses_by_public_facts(customers, items, epsilon, family):
    assert chosen_family(customers=customers, items=items, epsilon=epsilon) == family
    assert family in FAMILIES


def test_more_customers_or_a_larger_epsilon_never_lead_back_to_popularity():
    for customers in (10, 100, 1_000, 100_000):
        found = [chosen_family(customers=customers, items=500, epsilon=e) for e in (0.1, 1.0, 8.0, 64.0, math.inf)]
        assert found == sorted(found, reverse=True)  # "popularity" first, "item-gram" afterwards


@pytest.mark.parametrize("changes", [{"customers": 0}, {"items": 0}, {"epsilon": 0.0}, {"epsilon": math.nan}])
def test_facts_that_are_not_above_zero_are_refused(changes):
    with pytest.raises(ValueError, match="above 0"):
        chosen_family(**{"customers": 10, "items": 10, "epsilon": 1.0, **changes})


def test_a_model_of_one_vector_falls_back_and_one_of_two_does_not():
    strengths = np.zeros(8, dtype=np.float32)
    assert falls_back(strengths)
    strengths[0] = 0.9
    assert falls_back(strengths)
    strengths[1] = 0.1
    assert not falls_back(strengths)
