"""Plans that recommend: what they may say, what they release in which order, and what their noise costs."""

import dataclasses
import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from coterie.privacy.accountant import epsilon
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.charges import Charge, refuse_beyond_declared
from coterie.privacy.compliance import breaches
from coterie.privacy.errors import BudgetExhausted, FileFault, PlanFault
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.plan import RECOMMENDERS, SECURE, TRAINED, Recommendation, plan_from_dict
from coterie.privacy.policy import Policy
from coterie.privacy.schedule import countings, releases_of, round_of, summed, trained, trainings
from coterie.privacy.schema import parse
from coterie.privacy.sums import epoch_of, most_epochs, numbers_of
from coterie.tests.clients.federation import changed, study
from coterie.tests.clients.recommending import CONTRACT, FAMILIES, TRUSTS, recommends

PLANS = [recommends(name, trust) for name in FAMILIES for trust in TRUSTS]
IDS = [f"{plan.model.family} {plan.privacy.trust}" for plan in PLANS]
each_plan = pytest.mark.parametrize("plan", PLANS, ids=IDS)


def faults_of(plan):
    with pytest.raises(FileFault) as caught:
        plan.check("study.toml")
    return str(caught.value)


# --- what a plan may say ------------------------------------------------------------------------------------------


@each_plan
def test_a_plan_that_recommends_keeps_every_rule_and_survives_its_own_writing(plan):
    plan.check("study.toml")
    assert plan_from_dict(plan.to_dict()) == plan
    assert plan_from_dict(plan.to_dict()).digest() == plan.digest()


WRONG = {
    "another task's family": ({"model__family": "logistic"}, "is none for recommendation"),
    "no interactions": ({"contract": study().contract}, "go together"),
    "no catalogue": ({"catalogue": None}, "go together"),
    "a sample of a family of whole sums": ({"training__sample_rate": 0.5}, "over all customers"),
    "two sums of one step": ({"training__local_steps": 2}, "over all customers"),
    "two Gram sums": ({"training__rounds": 2, "metrics__rounds": (2,)}, "made of one sum"),
    "a server's optimiser of updates": ({"training__server": "fedadam"}, "no part in recommendation"),
    "a weight of positives": ({"training__positive_weight": 2.0}, "no part in recommendation"),
    "a label": ({"contract": dataclasses.replace(CONTRACT, label="bought")}, "do not go with interactions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_named(name):
    changes, says = WRONG[name]
    assert says in faults_of(recommends("item-gram", **changes))


@pytest.mark.parametrize(
    ("dimension", "keep", "most", "fits"),
    [(64, 5000, 2048, True), (256, 500, 256, True), (256, 5000, 256, False), (256, 500, 2048, False)],
)
def test_memory_that_would_grow_with_one_customer_s_history_is_bounded_by_the_plan(dimension, keep, most, fits):
    plan = recommends("ials", recommendation=Recommendation(dimension=dimension, keep=keep))
    rows = dataclasses.replace(CONTRACT.interactions, most=most)
    plan = changed(plan, contract__interactions=rows, catalogue__items=100_000)
    if fits:
        plan.check("study.toml")
    else:
        assert "sums of ials too large" in faults_of(plan)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_recommender_is_no_family_of_another_task(name):
    assert "is none for propensity" in faults_of(study(model__family=name))


def test_a_plan_of_another_task_has_neither_catalogue_nor_settings_of_recommenders():
    for part in ("catalogue", "recommendation"):
        assert "go together" in faults_of(study(**{part: getattr(PLANS[0], part)}))


def policy(**changes):
    rules = {
        "coordinator": "key",
        "customer": "customer",
        "labels": [],
        "purposes": ["coupons"],
        "columns": ["item", "day"],
        "families": ["item-gram"],
        "trust": ["local"],
        "minimum_partners": 3,
        "minimum_customers": 10,
        "budget": {"delta": 1e-5, "lifetime_epsilon": 24, "study_epsilon": 8},
    }
    return parse(Policy, rules | changes, place="policy")


@pytest.mark.parametrize(
    ("changes", "rules", "code"),
    [
        ({"model__family": "auto"}, {}, "family"),
        ({"model__family": "ials"}, {}, "family"),
        ({}, {"columns": ["item"]}, "column"),
        ({"contract__interactions": dataclasses.replace(CONTRACT.interactions, value="stars")}, {}, "column"),
        ({"contract__customer": "person"}, {}, "customer"),
        ({"purpose": "calls"}, {}, "purpose"),
    ],
)
def test_a_policy_permits_columns_and_families_of_recommenders_one_by_one(changes, rules, code):
    plan = recommends("item-gram")
    assert not breaches(plan, policy(), "amber")
    assert [reason.code for reason in breaches(changed(plan, **changes), policy(**rules), "amber")] == [code]


def test_no_policy_permits_a_family_that_is_still_to_be_chosen():
    with pytest.raises(FileFault, match="families"):
        policy(families=["auto"])


# --- what is released, and when -----------------------------------------------------------------------------------


@each_plan
def test_everything_is_released_once_and_items_are_counted_before_all_else(plan):
    rounds = [releases_of(plan, number) for number in range(1, plan.training.rounds + 1)]
    names = [name for round_ in rounds for name in round_]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.startswith("evaluate/")] == list(trained(plan))
    assert (names[0] == "count/1") == (plan.model.family != "popularity") == bool(countings(plan))
    assert all(round_of(plan, name) == number for number, round_ in enumerate(rounds, 1) for name in round_)
    assert summed(plan)
    per_round = plan.training.local_steps if plan.model.family in TRAINED else 1
    assert trainings(plan) == plan.training.rounds * per_round


@pytest.mark.parametrize("step", ["count/0", "count/2", "count/01", "count/\N{SUPERSCRIPT ONE}", "count/-1", "count"])
def test_there_is_one_count_and_it_has_one_name(step):
    assert round_of(recommends("item-gram"), step) is None
    assert round_of(recommends("item-gram"), "count/1") == 1
    assert round_of(recommends("popularity"), "count/1") is None
    assert round_of(study(), "count/1") is None


def test_an_epoch_is_of_one_kind_of_sum_whose_numbers_are_of_one_width():
    plan = recommends("item-gram", SECURE)
    plan = changed(plan, partners=tuple(dataclasses.replace(p, key=f"key of {p.name}") for p in plan.partners))
    for steps in (("count/1",), ("train/1",), ("evaluate/1",)):
        assert epoch_of(plan, 1, steps).bits == numbers_of(plan, steps[0]).bits
    for steps in (("count/1", "train/1"), ("count/1", "evaluate/1"), ("count/1", "count/1"), ("count/2",)):
        with pytest.raises(PlanFault, match="of one kind"):
            epoch_of(plan, 1, steps)
    assert most_epochs(plan) > most_epochs(recommends("popularity", SECURE))


# --- what it costs ------------------------------------------------------------------------------------------------


def gaussian_epsilon(mu, delta=1e-5):
    """Of the Gaussian mechanism of sensitivity over noise mu, exactly (Balle and Wang 2018, theorem 8)."""
    excess = lambda eps: norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta  # noqa: E731
    return brentq(excess, 0, 100)


@each_plan
def test_a_count_and_all_sums_together_spend_the_plan_s_epsilon_and_no_more(plan):
    made = calibrate(plan)
    for group in (TRAINING, HOLDOUT):
        spent = epsilon(made.events(group), plan.privacy.delta)
        assert 0.99 * plan.privacy.epsilon < spent <= plan.privacy.epsilon
    if plan.training.sample_rate == 1:
        counted = [made.counting] * made.countings
        mu = math.sqrt(sum(event.noise_multiplier**-2 for event in [*counted, *[made.update] * made.updates]))
        assert 0.99 * plan.privacy.epsilon < gaussian_epsilon(mu) <= plan.privacy.epsilon


@each_plan
def test_the_noise_of_a_partner_or_of_the_honest_ones_earns_the_event(plan):
    made, secure = calibrate(plan), plan.privacy.trust == SECURE
    honest = plan.privacy.threshold - plan.privacy.colluders if secure else 1
    kinds = [("train/1", made.update), *([("count/1", made.counting)] if made.counting else [])]
    for step, event in kinds:
        numbers = numbers_of(plan, step)
        assert isinstance(event, DistributedGaussian if secure else PoissonGaussian)
        assert honest * numbers.share**2 - 36 >= (event.noise_multiplier * numbers.sensitivity) ** 2 * (1 - 1e-12)
        assert event.sample_rate == (plan.training.sample_rate if step == "train/1" else 1.0)
        assert event.steps == 1
        # Contributions of twice the declared customers fit, and a sum among all partners with its noise.
        assert numbers.bound >= 2 * 60 * event.sample_rate * numbers.sensitivity
        assert 4 * numbers.bound + 22 * numbers.share < 2 ** (numbers.bits - 1)
    assert isinstance(made.histogram, DistributedGaussian if secure else DiscreteGaussian)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_a_count_takes_its_share_of_the_squared_multipliers(share):
    plan = recommends("item-gram", recommendation=Recommendation(counts=share, keep=12))
    made = calibrate(plan)
    counted, update = (event.noise_multiplier**-2 for event in (made.counting, made.update))
    assert counted / (counted + update) == pytest.approx(share, rel=0.02)


def test_popularity_spends_everything_on_its_one_sum():
    plan = recommends("popularity")
    made = calibrate(plan)
    assert (made.counting, made.countings, made.updates) == (None, 0, 1)
    assert made.update.noise_multiplier < calibrate(recommends("item-gram")).counting.noise_multiplier
    with pytest.raises(PlanFault, match="no such sums"):
        numbers_of(plan, "count/1")
    with pytest.raises(PlanFault, match="no such sums"):
        numbers_of(plan, "evaluate/1")  # a partner's own histogram is made of counts


def test_spare_attempts_are_paid_for_by_counts_and_by_sums():
    plain, spare = (calibrate(recommends("item-gram", training__spare=count)) for count in (0, 1))
    assert (spare.countings, spare.updates, spare.histograms) == (2, 2, 2)
    assert spare.counting.noise_multiplier > plain.counting.noise_multiplier
    assert spare.update.noise_multiplier > plain.update.noise_multiplier
    assert epsilon(spare.events(TRAINING), 1e-5) <= 8


def test_the_settings_of_a_recommender_move_no_noise():
    other = Recommendation(keep=5, rank=2, dimension=9, exponent=1.0, ridge=0.5, content=3.0, negatives=2)
    for name in FAMILIES:
        assert calibrate(recommends(name)) == calibrate(recommends(name, recommendation=other))


def charge(step, event):
    return Charge("plan", "coupons", step, 1, TRAINING, event, "os")


def test_counts_and_sums_are_declared_apart_and_neither_is_charged_in_the_other_s_place():
    made = calibrate(recommends("ials"))
    counted, sums = charge("count/1", made.counting), [charge(f"train/{n}", made.update) for n in (1, 2, 3)]
    refuse_beyond_declared(sums[0], [counted], made.updates)
    refuse_beyond_declared(counted, sums[:2], made.countings)
    with pytest.raises(BudgetExhausted, match="declared 2"):
        refuse_beyond_declared(sums[2], [counted, *sums[:2]], made.updates)
    with pytest.raises(BudgetExhausted, match="declared 1"):
        refuse_beyond_declared(charge("count/2", made.counting), [counted], made.countings)
    with pytest.raises(BudgetExhausted):
        refuse_beyond_declared(charge("train/2", made.counting), sums[:1], made.updates)
