"""A person who is a customer of several partners: together its parts are held to what one customer may add."""

import dataclasses
import math

import numpy as np
import pytest

from coterie.clients.recommendersums import Asked, recommender_total
from coterie.clients.task import initial_weights
from coterie.models.histories import Histories
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.errors import FileFault
from coterie.privacy.randomness import SeededSource
from coterie.privacy.schedule import trained
from coterie.privacy.statement import statement
from coterie.privacy.sums import numbers_of
from coterie.privacy.terms import PERSON
from coterie.tests.clients.recommending import ATTRIBUTES, ITEMS, histories, recommends

SECURE = "secure-aggregation"
PERSONS = {"privacy__unit": PERSON, "privacy__partners_per_person": 2}
RANDOM = SeededSource(b"persons")


def both(family: str, trust: str = SECURE, **changes):
    plan = recommends(family, trust, **changes)
    return dataclasses.replace(plan, training=dataclasses.replace(plan.training, sample_rate=1.0))


def parts(plan, step: str, person: list[int], others: list[list[int]]) -> list[np.ndarray]:
    """What a person's rows change at two partners that hold all of them."""
    weights = initial_weights(plan)
    seen = (np.linspace(1, 2, ITEMS).astype(np.float32), *weights[1:])
    asked, numbers = Asked(plan, seen, ATTRIBUTES), numbers_of(plan, step)

    def total(known: Histories) -> np.ndarray:
        return recommender_total(asked, step, known, numbers=numbers, stream=RANDOM.stream("sample"))

    return [total(histories([*few, person])) - total(histories(few)) for few in (others[:3], others[3:])]


OTHERS = [[0, 1, 2], [3, 4, 5, 6], [1, 7], [2, 9, 11], [0, 12, 13, 14], [5, 8]]


@pytest.mark.parametrize("family", ["popularity", "item-gram", "ials", "mf-bpr"])
def test_a_persons_parts_at_two_partners_add_up_to_at_most_one_customers(family):
    plan = both(family, **PERSONS)
    plan.check("plan")
    for step in {name.partition("/")[0]: name for name in trained(plan)}.values():
        bound = numbers_of(plan, step).sensitivity
        changed = np.sum(parts(plan, step, [0, 3, 8, 10, 15], OTHERS), axis=0)
        length = math.sqrt(sum(int(value) ** 2 for value in changed))
        assert 0 < length <= bound
        alone = both(family)  # without the unit, the same rows at two partners go beyond the bound
        apart = np.sum(parts(alone, step, [0, 3, 8, 10, 15], OTHERS), axis=0)
        assert family == "mf-bpr" or math.sqrt(sum(int(v) ** 2 for v in apart)) > numbers_of(alone, step).sensitivity


@pytest.mark.parametrize(
    "plan",
    [
        both("item-gram", "local", **PERSONS),
        recommends("mf-bpr", SECURE, **PERSONS),
        both("item-gram", privacy__unit=PERSON),
        both("item-gram", privacy__partners_per_person=2),
        both("item-gram", privacy__unit=PERSON, privacy__partners_per_person=5),
    ],
    ids=["local", "sampled", "no k", "no unit", "more than there are"],
)
def test_where_no_theorem_carries_it_the_unit_is_refused(plan):
    with pytest.raises(FileFault, match=r"privacy\.(unit|partners_per_person)"):
        plan.check("plan")


def test_the_statement_counts_a_person_at_up_to_k_partners_as_one():
    plan = both("item-gram", **PERSONS)
    told = {row["partners"]: row["epsilon"] for row in statement(plan, calibrate(plan))["multiplicity"]}
    assert told[1] < told[2] <= plan.privacy.epsilon
    assert told[3] > plan.privacy.epsilon
    # Sums over all customers are Gaussians whose squared sensitivities over noise add up.
    for group in (TRAINING, HOLDOUT):
        one = sum(1 / event.noise_multiplier**2 for event in calibrate(plan).events(group))
        assert _delta(told[2], math.sqrt(one)) <= plan.privacy.delta * (1 + 1e-6)


def _delta(epsilon: float, mu: float) -> float:
    """The exact delta of a Gaussian with this ratio of sensitivity to noise (Balle and Wang 2018, theorem 8)."""

    def below(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return below(-epsilon / mu + mu / 2) - math.exp(epsilon) * below(-epsilon / mu - mu / 2)
