"""Ledgers of recommenders before a reviewer: a true one is verified, and every lie about its counts is found."""

import functools

import pytest

from coterie.privacy.calibration import TRAINING, calibrate
from coterie.privacy.events import event_to_dict
from coterie.privacy.plan import TRAINED, Recommendation
from coterie.privacy.randomness import OsSource
from coterie.privacy.renyi import Filter, curve
from coterie.privacy.review.composition import composition, matches_plan
from coterie.privacy.review.facts import facts
from coterie.tests.clients.recommending import FAMILIES, TRUSTS, Recommending, recommends, tables
from coterie.tests.clients.summing import quick_folder
from coterie.tests.privacy.review.bundles import exported, failing, opened, resigned, verdict_of, wanting

PLANS = {(name, trust): recommends(name, trust) for name in FAMILIES for trust in TRUSTS}
GRAM = PLANS["item-gram", "local"]


@pytest.fixture(scope="module")
def ran():
    """Run a study once, and return its federation."""
    with quick_folder() as folder:
        rows = tables(20)

        @functools.cache
        def run(plan):
            federation = Recommending(folder / str(hash(plan)), plan, rows)
            federation.random = OsSource()
            federation.run()
            return federation

        yield run


@pytest.fixture(scope="module")
def told(ran):
    """The bundle of a study, taken apart anew for each test, and what it takes to sign it."""

    def tell(plan=GRAM):
        federation = ran(plan)
        return opened(exported(federation)), federation.workspace("amber").identity, federation.coordinator

    return tell


# --- the truth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "trust"), PLANS)
def test_the_ledger_of_a_recommender_is_verified(ran, name, trust):
    plan = PLANS[name, trust]
    verdict = verdict_of(exported(ran(plan)))
    assert not wanting(verdict), verdict.line
    training, holdout = verdict.studies[0].groups
    made = calibrate(plan)
    expected = {made.update: 2 if name in {*TRAINED, "ials"} else 1}
    if name != "popularity":
        expected[made.counting] = 1
    assert dict(training.events) == expected
    assert dict(holdout.events) == {made.histogram: 1}


@pytest.mark.parametrize("trust", TRUSTS)
def test_both_accountants_find_what_a_count_and_a_sum_cost_together_within_the_plan(ran, trust):
    plan = PLANS["item-gram", trust]
    verdict = verdict_of(exported(ran(plan)), accounting=True)
    assert verdict.status == "holds", verdict.line
    told = [fact for fact in facts(verdict, verdict.studies[0]) if fact.topic == "composition inside the study"]
    basis = {fact.name: fact.basis for fact in told}
    assert (basis["charges without consent"], basis["method"]) == ("verified", "recomputed")
    training = verdict.studies[0].groups[0]
    assert 0.98 * plan.privacy.epsilon < training.claimed.first <= plan.privacy.epsilon
    assert training.declared == 2
    found = composition(verdict, verdict.studies[0])
    assert matches_plan(found) == ()
    assert sorted(map(str, found.allowed[TRAINING])) == sorted(map(str, calibrate(plan).events(TRAINING)))


def test_a_count_and_a_sum_of_one_event_are_two_kinds_of_step(ran):
    # With half the budget for each the thousandths of both multipliers come out alike.
    plan = recommends("item-gram", privacy__epsilon=2.0, recommendation=Recommendation(counts=0.5, keep=12, rank=4))
    made = calibrate(plan)
    assert made.counting == made.update
    verdict = verdict_of(exported(ran(plan)))
    assert not wanting(verdict), verdict.line
    assert dict(verdict.studies[0].groups[0].events) == {made.update: 2}
    budgets = [budget for budget in verdict.budgets if budget.group == TRAINING]
    assert budgets
    whole = curve(made.events(TRAINING))
    for budget in budgets:
        assert dict(budget.runs)[plan.name] == Filter(budget.epsilon, budget.delta).runs_left(whole, whole)


# --- lies ---------------------------------------------------------------------------------------------------------


def consent(bundle):
    return bundle.of("consent")[0]["body"]


def charge_of(bundle, kind):
    return next(entry for entry in bundle.of("reserve") if entry["body"]["step"].startswith(kind))


def one_count_more_is_declared(bundle, _):
    consent(bundle)["countings"] += 1
    return "consent"


def no_count_is_declared(bundle, _):
    del consent(bundle)["counting"], consent(bundle)["countings"]
    return "consent"


def a_number_of_counts_without_an_event_is_declared(bundle, _):
    del consent(bundle)["counting"]
    return "consent"


def the_count_is_declared_over_a_sample(bundle, _):
    consent(bundle)["counting"]["sample_rate"] = 0.5
    charge_of(bundle, "count")["body"]["event"]["sample_rate"] = 0.5
    return "consent"


def the_count_is_declared_as_a_histogram(bundle, _):
    consent(bundle)["counting"] = dict(consent(bundle)["histogram"])
    charge_of(bundle, "count")["body"]["event"] = dict(consent(bundle)["histogram"])
    return "consent"


def one_update_more_is_declared_and_one_count_less(bundle, _):
    consent(bundle)["updates"] += 1
    consent(bundle)["countings"] -= 1
    return "consent"


CONSENTS = (
    one_count_more_is_declared,
    no_count_is_declared,
    a_number_of_counts_without_an_event_is_declared,
    the_count_is_declared_over_a_sample,
    the_count_is_declared_as_a_histogram,
    one_update_more_is_declared_and_one_count_less,
)


@pytest.mark.parametrize("lie", CONSENTS, ids=lambda lie: lie.__name__)
def test_a_consent_that_says_something_else_of_counts_than_the_plan_is_found(told, lie):
    bundle, partner, coordinator = told()
    place = bundle.at(lie(bundle, None))
    found = failing(verdict_of(resigned(bundle, partner, coordinator)))
    assert found["consents"] == place


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("also", [False, True])
def test_a_count_declared_with_more_noise_than_the_plan_leads_to_is_found(told, trust, also):
    """More would be charged for less than was spent: the true noise is the plan's."""
    bundle, partner, coordinator = told(PLANS["item-gram", trust])
    field = "noise_multiplier" if trust == "local" else "share"
    for body in (consent(bundle)["counting"], *([charge_of(bundle, "count")["body"]["event"]] if also else [])):
        body[field] = body[field] * 2
    verdict = verdict_of(resigned(bundle, partner, coordinator), accounting=True)
    assert failing(verdict)["accountants"] == bundle.at("consent")
    assert ("charges" in failing(verdict)) != also


def test_a_count_declared_with_less_noise_exceeds_the_plan(told):
    bundle, partner, coordinator = told()
    for body in (consent(bundle)["counting"], charge_of(bundle, "count")["body"]["event"]):
        body["noise_multiplier"] /= 2
    verdict = verdict_of(resigned(bundle, partner, coordinator), accounting=True)
    says = {finding.says for check in verdict.checks if check.name == "accountants" for finding in check.findings}
    assert any("exceeds the plan's epsilon" in one for one in says)
    assert any("other noise for group training" in one for one in says)


def a_count_charged_as_an_update(bundle):
    body = charge_of(bundle, "count")["body"]
    body["event"] = dict(consent(bundle)["update"])


def an_update_charged_as_a_count(bundle):
    body = charge_of(bundle, "train")["body"]
    body["event"] = dict(consent(bundle)["counting"])


def a_count_charged_to_the_held_out(bundle):
    charge_of(bundle, "count")["body"]["group"] = "holdout"


def a_second_count_of_the_same_name(bundle):
    bundle.insert(len(bundle.entries) + 1, "reserve", dict(charge_of(bundle, "count")["body"]))


def a_second_count_of_another_name(bundle):
    bundle.insert(len(bundle.entries) + 1, "reserve", {**charge_of(bundle, "count")["body"], "step": "count/2"})


def a_second_attempt_that_the_plan_does_not_have(bundle):
    bundle.insert(len(bundle.entries) + 1, "reserve", {**charge_of(bundle, "count")["body"], "attempt": 2})


CHARGES = (
    a_count_charged_as_an_update,
    an_update_charged_as_a_count,
    a_count_charged_to_the_held_out,
    a_second_count_of_the_same_name,
    a_second_count_of_another_name,
    a_second_attempt_that_the_plan_does_not_have,
)


@pytest.mark.parametrize("lie", CHARGES, ids=lambda lie: lie.__name__)
def test_a_charge_that_is_none_of_the_consent_s_is_found(told, lie):
    bundle, partner, coordinator = told()
    lie(bundle)
    assert "charges" in failing(verdict_of(resigned(bundle, partner, coordinator)))


def test_a_count_that_was_never_charged_is_found_by_the_coordinator_s_record(told):
    bundle, partner, coordinator = told()
    place = bundle.entries.index(charge_of(bundle, "count")) + 1
    settles = [entry for entry in bundle.of("settle") if entry["body"]["reserve"] == place]
    bundle.remove(bundle.entries.index(settles[0]) + 1)
    bundle.remove(place)
    assert "receipts" in failing(verdict_of(resigned(bundle, partner, coordinator)))


def test_a_plan_of_popularity_alone_has_no_count_to_charge(told):
    bundle, partner, coordinator = told(PLANS["popularity", "local"])
    other, *_ = told()
    body = {
        **charge_of(bundle, "train")["body"],
        "step": "count/1",
        "event": charge_of(other, "count")["body"]["event"],
    }
    bundle.insert(len(bundle.entries) + 1, "reserve", body)
    verdict = verdict_of(resigned(bundle, partner, coordinator))
    (says,) = {f.says for check in verdict.checks if check.name == "charges" for f in check.findings}
    assert "of which the consent knows none" in says


def test_a_consent_changes_no_count_that_was_consented_to_before(told):
    bundle, partner, coordinator = told()
    again = {**consent(bundle), "counting": {**consent(bundle)["counting"], "noise_multiplier": 5.0}}
    bundle.insert(len(bundle.entries) + 1, "consent", again)
    verdict = verdict_of(resigned(bundle, partner, coordinator))
    assert failing(verdict)["consents"] == len(bundle.entries)


def test_the_curve_of_an_update_is_told_and_not_that_of_a_count(told):
    bundle, partner, coordinator = told()
    made = calibrate(GRAM)
    assert consent(bundle)["counting"] == event_to_dict(made.counting)
    consent(bundle)["update_curve"] = list(curve([made.counting]))
    assert failing(verdict_of(resigned(bundle, partner, coordinator)))["accountants"] == bundle.at("consent")
