"""The rule behind `family = "auto"` for propensity: public facts decide, and nothing else."""

import dataclasses
import math

import pytest

from coterie.privacy.binterms import Bins
from coterie.privacy.chosen import chosen_propensity
from coterie.privacy.plan import SECURE
from coterie.privacy.study import read_study
from coterie.privacy.terms import Model
from coterie.simulations import studies


@pytest.fixture(scope="module")
def undecided():
    plan = read_study(studies.path("income-additive")).plan
    return dataclasses.replace(plan, model=Model(family="auto"), bins=None, secure=None)


def with_facts(plan, *, customers=40_000, epsilon=1.0, trust=SECURE, count=4):
    partners = tuple(
        dataclasses.replace(plan.partners[0], name=f"p{number}", customers=customers // count)
        for number in range(count)
    )
    privacy = dataclasses.replace(plan.privacy, epsilon=epsilon, trust=trust, threshold=count, colluders=1)
    return dataclasses.replace(plan, partners=partners, privacy=privacy)


def test_a_study_that_ships_with_settings_has_those_of_the_rule(undecided):
    written = read_study(studies.path("income-additive")).plan
    chosen = chosen_propensity(undecided)
    assert chosen.bins == written.bins
    assert (chosen.model, chosen.secure) == (written.model, written.secure)
    assert chosen.training.clip == pytest.approx(written.training.clip, abs=1e-4)
    assert chosen.training.learning_rate == pytest.approx(written.training.learning_rate, abs=1e-4)
    assert chosen.training.rounds * chosen.training.local_steps == 30
    chosen.check("chosen")


@pytest.mark.parametrize(
    ("facts", "most", "cells", "steps", "damping"),
    [
        ({}, 24, 256, 30, 1.0),
        ({"epsilon": 8.0}, 48, 1024, 30, 1.0),
        ({"customers": 400_000}, 64, 1024, 30, 1.0),
        ({"customers": 3_600}, 8, 64, 15, 2.0),
        ({"customers": 3_600, "epsilon": 2.0}, 9, 128, 15, 1.0),
        ({"trust": "local"}, 17, 256, 30, 1.0),  # twice the noise is half the customers' signal
        ({"trust": "local", "customers": 28_000}, 14, 128, 15, 1.0),
    ],
)
def test_bins_grow_with_declared_customers_and_epsilon(undecided, facts, most, cells, steps, damping):
    chosen = chosen_propensity(with_facts(undecided, **facts))
    assert chosen.bins == Bins(most=most, cells=cells, damping=damping)
    assert chosen.training.rounds * chosen.training.local_steps == steps
    assert chosen.training.clip == pytest.approx(0.7 * math.sqrt(11))
    chosen.check("chosen")


def test_what_a_plan_says_itself_is_kept(undecided):
    own = Bins(most=5, pairs=("age * gender",))
    chosen = chosen_propensity(dataclasses.replace(undecided, bins=own))
    assert chosen.bins == own
    assert chosen.training.clip == pytest.approx(0.7 * math.sqrt(12))  # a pair is one slot more of a row
    assert chosen.metrics == undecided.metrics
    logistic = dataclasses.replace(undecided, model=Model(family="logistic"))
    assert chosen_propensity(logistic) is logistic
