"""The statement: recomputed from events, complete, and silent where there is no guarantee."""

import dataclasses
import json
import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from coterie.privacy.accountant import CERTIFICATE, REPLACE_ONE, epsilon
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.statement import NOT_COVERED, statement


@pytest.fixture
def mechanisms(plan):
    return calibrate(plan)


def figures(value):
    """Yield every number of a nested value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from figures(item)
    elif isinstance(value, float):
        yield value


def test_the_study_s_epsilon_is_that_of_its_worse_group(plan, mechanisms):
    said = statement(plan, mechanisms)
    exact = {g: epsilon(mechanisms.events(g), plan.privacy.delta, grid=CERTIFICATE) for g in (TRAINING, HOLDOUT)}
    assert {row["group"]: row["epsilon"] for row in said["groups"]} == exact
    assert said["study"]["epsilon"] == max(exact.values()) <= plan.privacy.epsilon
    assert said["study"]["delta"] == plan.privacy.delta
    assert said["study"]["trust"] == plan.privacy.trust
    assert said["study"]["unit"] == plan.privacy.unit


def test_the_worse_group_is_found_whichever_it_is(plan):
    for training, metrics in ((0.2, 1.0), (1.0, 0.2)):
        split = dataclasses.replace(plan.privacy.split, training=training, metrics=metrics)
        varied = dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, split=split))
        said = statement(varied, calibrate(varied))
        assert said["study"]["epsilon"] == max(row["epsilon"] for row in said["groups"]) > 0.9
        assert {row["group"]: row["share"] for row in said["groups"]} == {TRAINING: training, HOLDOUT: metrics}


def test_persons_at_several_partners_are_tabled_for_the_worst_mixture_of_groups(plan, mechanisms):
    table = statement(plan, mechanisms)["multiplicity"]
    assert [row["partners"] for row in table] == [1, 2, 3]
    training, holdout = mechanisms.events(TRAINING), mechanisms.events(HOLDOUT)
    for row in table:
        k = row["partners"]
        # A person may be held out at some partners and trained on at the others.
        worst = max(epsilon(training * t + holdout * (k - t), plan.privacy.delta) for t in range(k + 1))
        assert row["epsilon"] == pytest.approx(worst, rel=1e-6)
    assert table[0]["epsilon"] < table[1]["epsilon"] < table[2]["epsilon"]


def test_the_replace_one_figure_is_recomputed_for_customers_of_one_group_and_of_both(plan, mechanisms):
    said, delta = statement(plan, mechanisms), plan.privacy.delta
    training, holdout = mechanisms.events(TRAINING), mechanisms.events(HOLDOUT)
    within = [epsilon(group, delta, relation=REPLACE_ONE) for group in (training, holdout)]
    across = epsilon(training + holdout, delta)
    assert said["replace_one"] == pytest.approx(max(*within, across), rel=1e-6)
    assert said["replace_one"] > said["study"]["epsilon"]
    assert said["replace_one"] != pytest.approx(2 * said["study"]["epsilon"], rel=1e-3)


def test_the_worst_mixture_and_the_worst_replacement_are_looked_for_and_not_assumed(plan, mechanisms, monkeypatch):
    # A made-up cost at which it is worst to touch both groups, which real plans seldom meet.
    def cost(events, delta, **relation):
        return 1.0 if relation else float(len(set(events)))

    monkeypatch.setattr("coterie.privacy.statement.epsilon", cost)
    said = statement(plan, mechanisms)
    assert [row["epsilon"] for row in said["multiplicity"]] == [1.0, 2.0, 2.0]
    assert said["replace_one"] == 2.0


def test_words_carry_the_figures(plan, mechanisms):
    said = statement(plan, mechanisms)
    words = " ".join(said["words"])
    assert f"{said['study']['epsilon']:.2f}" in words
    assert f"{math.exp(said['study']['epsilon']):.2f}" in words
    assert f"{plan.privacy.delta:g}" in words
    assert said["not_covered"] == list(NOT_COVERED)


def test_a_run_on_seeded_noise_states_no_epsilon_anywhere(plan, mechanisms):
    said = json.loads(json.dumps(statement(plan, mechanisms, random_source="seeded"), allow_nan=False))
    assert said["study"]["epsilon"] is None
    assert said["replace_one"] is None
    assert {row["epsilon"] for row in said["groups"]} == {row["epsilon"] for row in said["multiplicity"]} == {None}
    # What numbers remain are the plan's own: delta and the shares.
    assert set(figures(said)) <= {plan.privacy.delta, 1.0}
    assert "no guarantee" in " ".join(said["words"])
    assert "epsilon" not in " ".join(said["words"])


# --- secure aggregation ---------------------------------------------------------------------------------


@pytest.fixture
def summed(plan):
    partners = (*plan.partners, dataclasses.replace(plan.partners[0], name="travel"))
    privacy = dataclasses.replace(plan.privacy, trust="secure-aggregation", threshold=3)
    return dataclasses.replace(plan, partners=partners, privacy=privacy)


def test_a_statement_on_secure_sums_says_who_is_trusted_and_credits_no_surplus(summed):
    said = statement(summed, calibrate(summed))
    words = " ".join(said["words"])
    assert "together with up to 1 of the 4 partners" in words
    assert "at least 3 partners" in words
    assert f"{math.sqrt(4 / 2):.2f} times the noise" in words
    assert "never credited" in words
    assert "nobody outside the partner needs to be trusted" not in words
    assert said["study"]["trust"] == "secure-aggregation"
    assert not any("floating-point noise" in text for text in said["not_covered"])
    assert any("colluders" in text for text in said["not_covered"])
    assert {row["epsilon"] <= summed.privacy.epsilon for row in said["groups"]} == {True}


def test_persons_at_several_partners_share_the_noise_of_secure_sums(summed):
    whole = dataclasses.replace(summed, training=dataclasses.replace(summed.training, sample_rate=1.0))
    mechanisms, delta = calibrate(whole), whole.privacy.delta
    shown = {row["partners"]: row["epsilon"] for row in statement(whole, mechanisms)["multiplicity"]}
    assert set(shown) == {1, 2, 3, 4}
    for k, told in shown.items():
        # Closed form: t partners move every sum of gradients t times, the others every sum of counts.
        precisions = [
            mechanisms.updates * (t / mechanisms.update.noise_multiplier) ** 2
            + mechanisms.histograms * ((k - t) / mechanisms.histogram.noise_multiplier) ** 2
            for t in range(k + 1)
        ]
        mu = math.sqrt(max(precisions))
        # Balle and Wang 2018, theorem 8
        exact = brentq(
            lambda e, mu=mu: norm.cdf(mu / 2 - e / mu) - math.exp(e + norm.logcdf(-mu / 2 - e / mu)) - delta, 0, 90
        )
        assert exact <= told <= 1.02 * exact
