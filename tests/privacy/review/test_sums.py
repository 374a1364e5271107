"""Ledgers of studies with secure aggregation: a true one holds, and every lie in one is found at its entry."""

import dataclasses
import json
import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.canonical import digest
from coterie.privacy.events import PoissonGaussian, event_to_dict
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Metrics
from coterie.privacy.renyi import ORDERS, curve
from coterie.privacy.review.composition import by_partners, composition, matches_plan, replaced
from coterie.privacy.review.cross import for_life
from coterie.privacy.review.difference import difference
from coterie.privacy.review.explain import explain
from coterie.privacy.review.facts import RECOMPUTED, VERIFIED, facts
from coterie.privacy.review.impact import impact_draft
from coterie.privacy.review.openings import Openings
from coterie.privacy.review.page.content import Reviewed
from coterie.privacy.review.page.render import render
from coterie.privacy.review.registry import registry_record
from coterie.privacy.review.trust import declared
from coterie.privacy.statement import not_covered, statement
from coterie.tests.clients.federation import today
from coterie.tests.privacy.review.bundles import NOWHERE, failing, made, resigned, verdict_of, wanting
from coterie.tests.privacy.review.sums import PEERS, ROSTER, SumStory, rounds, told

CASES = []


def case(check, says, *, accounting=False):
    """Register a history: the function returns its story and the entry that is to be named, 0 for the whole."""

    def register(tell):
        CASES.append(pytest.param(tell, check, says, accounting, id=tell.__name__.replace("_", " ")))
        return tell

    return register


def base(changes=None, **rules):
    """A story with a consent, its plan, and the keys of the first round."""
    story = SumStory(**rules)
    plan = story.plan(**(changes or {}))
    story.consent(plan)
    story.epoch(plan, 1, *rounds()[0])
    return story, plan


# --- the truth --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth():
    """A verdict on a whole true study, with both accountants."""
    story, _ = told()
    return verdict_of(story.bundle(), accounting=True)


def test_a_true_ledger_of_secure_sums_holds(truth):
    assert truth.status == "holds", truth.line
    assert {check.name for check in truth.checks} >= {"openings", "charges", "consents", "accountants", "cards"}
    (study,) = truth.studies
    assert study.openings == Openings(epochs=2, signed=6, revealed=6, fewest=3)
    assert study.trust == "secure-aggregation"
    kinds = {row[0] for group in study.groups for row in group.claimed.accountants}
    assert kinds == {"distributed-gaussian"}
    for group in study.groups:
        assert 0.95 * study.epsilon < group.claimed.first <= study.epsilon
    json.dumps(truth.to_dict())


def test_a_study_without_secure_sums_is_not_asked_about_them():
    verdict = verdict_of(made().bundle)
    assert "openings" not in {check.name for check in verdict.checks}
    assert {study.openings for study in verdict.studies} == {None}


def test_a_step_that_was_lost_is_opened_in_a_second_attempt_and_a_new_epoch():
    story, plan = base({"training__spare": 1})
    story.summed(plan, "train/1", 1)
    story.say("lost", {"reserve": story.reserve(plan, "train/2")})
    story.epoch(plan, 5, "train/2", "evaluate/1")
    story.charge(plan, "train/2", attempt=2)
    story.open(plan, "train/2", 5, attempt=2)
    verdict = verdict_of(story.bundle())
    assert not failing(verdict)
    assert verdict.studies[0].openings == Openings(epochs=2, signed=2, revealed=2, fewest=4)


def test_the_same_words_again_after_a_crash_are_no_second_story():
    story, plan = base()
    story.summed(plan, "train/1", 1)
    story.open(plan, "train/1", 1, survivors=list(ROSTER))
    verdict = verdict_of(story.bundle())
    assert not failing(verdict)
    assert verdict.studies[0].openings == Openings(epochs=1, signed=1, revealed=1, fewest=4)


def test_survivors_are_named_in_any_order():
    story, plan = base()
    story.charge(plan, "train/1")
    story.opening(plan, "train/1", 1)
    story.opening(plan, "train/1", 1, "revealed-shares", survivors=list(reversed(ROSTER)))
    assert not failing(verdict_of(story.bundle()))


def test_what_was_opened_after_the_last_cosigned_checkpoint_is_not_decided():
    story, plan = base()
    story.charge(plan, "train/1")
    story.cosign()
    story.open(plan, "train/1", 1)
    verdict = verdict_of(story.bundle())
    assert wanting(verdict)["checkpoints"] == ("open", story.size)


# --- what a consent declares ------------------------------------------------------------------------------


def declaring(name, **fields):
    """A story whose consent declares an event with other fields than the plan leads to."""
    story = SumStory()
    plan = story.plan()
    mechanisms = calibrate(plan)
    event = dataclasses.replace(getattr(mechanisms, name), **fields)
    story.consent(plan, **{name: event_to_dict(event), f"{name}_curve": list(curve([event]))})
    return story, 3


UPDATE = calibrate(SumStory().plan()).update
HISTOGRAM = calibrate(SumStory().plan()).histogram


@case("consents", "the noise of other than")
def more_honest_partners_are_counted_on_than_the_plan_promises():
    return declaring("update", shares=3)


@case("consents", "the noise of other than")
def more_honest_partners_are_counted_on_for_histograms():
    return declaring("histogram", shares=3)


@case("consents", "another sample rate")
def the_update_is_declared_at_a_lower_rate():
    return declaring("update", sample_rate=0.2)


@case("consents", "another sample rate")
def the_histogram_is_declared_as_if_it_were_sampled():
    return declaring("histogram", sample_rate=0.5)


@case("consents", "another sample rate")
def an_update_is_declared_for_a_whole_round():
    return declaring("update", steps=2)


@case("consents", "other mechanisms")
def noise_of_the_partner_s_own_is_declared_for_a_secure_sum():
    story = SumStory()
    plan = story.plan()
    story.consent(plan, update=event_to_dict(UPDATE.gaussian), update_curve=list(curve([UPDATE.gaussian])))
    return story, 3


@case("consents", "other mechanisms")
def a_secure_sum_is_declared_for_a_plan_that_has_none():
    story = SumStory()
    plan = story.plan(privacy__trust="local")
    story.consent(plan, update=event_to_dict(UPDATE), update_curve=list(curve([UPDATE])))
    return story, 3


@case("consents", "another number of updates")
def rounds_are_counted_where_every_step_is_a_sum():
    story = SumStory()
    plan = story.plan()
    story.consent(plan, updates=plan.training.rounds)
    return story, 3


@case("consents", "did not permit the plan (peers)")
def another_partner_s_key_is_not_the_one_that_the_policy_pins():
    story = SumStory(peers={**PEERS, "delta": "another key"})
    story.consent(story.plan())
    return story, 3


@case("consents", "did not permit the plan (trust)")
def the_policy_permits_no_secure_sums():
    story = SumStory(trust=["local"])
    story.consent(story.plan())
    return story, 3


@case("consents", "did not permit the plan (trust)")
def the_plan_assumes_fewer_colluders_than_the_policy_does():
    story = SumStory(minimum_colluders=2)
    story.consent(story.plan())
    return story, 3


@case("charges", "does not permit any more (peers)")
def a_peer_is_not_pinned_any_more_when_the_next_sum_is_charged():
    story, plan = base()
    story.rule(trust=["secure-aggregation"], peers={"birch": PEERS["birch"]})
    return story, story.reserve(plan)


@case("accountants", "another sensitivity or number", accounting=True)
def half_the_sensitivity_is_declared():
    return declaring("update", sensitivity=UPDATE.sensitivity // 2)


@case("accountants", "another sensitivity or number", accounting=True)
def sensitivity_and_noise_are_both_halved():
    return declaring("histogram", sensitivity=HISTOGRAM.sensitivity // 2, share=HISTOGRAM.share // 2)


@case("accountants", "declares other noise", accounting=True)
def half_the_noise_is_declared():
    return declaring("update", share=UPDATE.share // 2)


@case("accountants", "exceeds the plan's epsilon", accounting=True)
def half_the_noise_of_histograms_is_declared():
    return declaring("histogram", share=HISTOGRAM.share // 2)


@case("accountants", "declares other noise", accounting=True)
def twice_the_noise_is_declared_so_that_less_is_charged():
    return declaring("update", share=UPDATE.share * 2)


@case("consents", "the noise of other than")
def the_plan_s_threshold_is_another_one_with_every_signature_right():
    story = SumStory()
    plan = story.plan(privacy__threshold=4)
    events = {"update": UPDATE, "histogram": HISTOGRAM}
    told_of = {name: event_to_dict(event) for name, event in events.items()}
    curves = {f"{name}_curve": list(curve([event])) for name, event in events.items()}
    story.consent(plan, **told_of, **curves)
    return story, 3


# --- charges ----------------------------------------------------------------------------------------------


@case("charges", "a round or an attempt that the plan does not have")
def a_step_is_charged_that_the_plan_does_not_have():
    story, plan = base()
    return story, story.reserve(plan, "train/5")


@case("charges", "a round or an attempt that the plan does not have")
def a_second_attempt_is_charged_where_the_plan_has_none_to_spare():
    story, plan = base()
    return story, story.reserve(plan, "train/1", attempt=2)


@case("charges", "a round or an attempt that the plan does not have")
def a_round_is_measured_that_the_plan_does_not_measure():
    story = SumStory()
    plan = story.plan(metrics=Metrics(rounds=(2,), bins=8))
    story.consent(plan)
    return story, story.reserve(plan, "evaluate/1")


@case("charges", "another event or purpose")
def a_sum_is_charged_as_if_more_partners_were_honest():
    story, plan = base()
    return story, story.reserve(plan, "train/1", event=dataclasses.replace(UPDATE, shares=3))


# --- keys -------------------------------------------------------------------------------------------------


@case("openings", "keys for an epoch a second time")
def keys_are_made_twice_for_one_epoch():
    story, plan = base()
    return story, story.keys(plan, 1, rounds()[0])


@case("openings", "keys for an epoch before the last one")
def an_epoch_goes_back():
    story, plan = base()
    story.epoch(plan, 7, "train/3")
    return story, story.keys(plan, 3, ("train/3",))


@case("openings", "keys for an epoch before the last one")
def an_epoch_is_numbered_zero():
    story = SumStory()
    plan = story.plan()
    story.consent(plan)
    return story, story.keys(plan, 0, rounds()[0])


@case("openings", "shares for an epoch a second time")
def shares_are_dealt_twice():
    story, plan = base()
    return story, story.keys(plan, 1, rounds()[0], "dealt-shares")


@case("openings", "another epoch or other steps")
def shares_are_dealt_for_keys_that_were_never_made():
    story, plan = base()
    return story, story.keys(plan, 2, rounds()[1], "dealt-shares")


@case("openings", "another epoch or other steps")
def shares_are_dealt_for_other_steps():
    story, plan = base()
    story.keys(plan, 2, rounds()[1])
    return story, story.keys(plan, 2, rounds()[1][:1], "dealt-shares")


@case("openings", "another epoch or other steps")
def shares_of_an_earlier_epoch_are_dealt_late():
    story, plan = base()
    story.keys(plan, 2, rounds()[1])
    story.epoch(plan, 3, *rounds()[1])
    return story, story.keys(plan, 2, rounds()[1], "dealt-shares")


@case("openings", "a step twice, or for one that the plan does not have")
def keys_are_made_for_a_step_that_the_plan_does_not_have():
    story, plan = base()
    return story, story.keys(plan, 2, ("train/5",))


@case("openings", "a step twice, or for one that the plan does not have")
def keys_are_made_for_a_step_twice():
    story, plan = base()
    return story, story.keys(plan, 2, ("train/3", "train/3"))


@case("openings", "a study without consent")
def keys_are_made_for_a_study_without_consent():
    story = SumStory()
    return story, story.keys(story.plan(), 1, rounds()[0])


@case("openings", "a study that has none")
def keys_are_made_for_a_study_with_trust_in_nobody():
    story = SumStory()
    plan = story.plan(privacy__trust="local")
    story.consent(plan)
    return story, story.keys(plan, 1, ("train/1",))


# --- openings ---------------------------------------------------------------------------------------------


@case("openings", "no settled charge paid for")
def a_sum_is_opened_without_a_charge():
    story, plan = base()
    return story, story.opening(plan, "train/1", 1)


@case("openings", "no settled charge paid for")
def a_sum_is_opened_before_its_charge_is_settled():
    story, plan = base()
    charge = story.reserve(plan)
    place = story.opening(plan, "train/1", 1)
    story.settle(charge)
    return story, place


@case("openings", "no settled charge paid for")
def a_lost_charge_s_sum_is_opened():
    story, plan = base()
    story.say("lost", {"reserve": story.reserve(plan)})
    return story, story.opening(plan, "train/1", 1)


@case("openings", "no settled charge paid for")
def another_attempt_is_opened_than_was_paid_for():
    story, plan = base({"training__spare": 1})
    story.charge(plan, "train/1")
    return story, story.opening(plan, "train/1", 1, attempt=2)


@case("openings", "fewer partners than the plan's threshold")
def a_sum_is_opened_below_the_threshold():
    story, plan = base({"privacy__threshold": 4})
    story.charge(plan)
    return story, story.opening(plan, "train/1", 1, survivors=list(ROSTER[:3]))


@case("openings", "over a partner twice")
def survivors_are_counted_twice():
    story, plan = base()
    story.charge(plan)
    return story, story.opening(plan, "train/1", 1, survivors=["amber", "birch", "birch"])


@case("openings", "somebody who is not in the roster")
def somebody_survives_who_is_not_in_the_roster():
    story, plan = base()
    story.charge(plan)
    return story, story.opening(plan, "train/1", 1, survivors=[*ROSTER[:3], "elder"])


@case("openings", "in which it has no part")
def a_sum_is_opened_without_this_partner():
    story, plan = base()
    story.charge(plan)
    return story, story.opening(plan, "train/1", 1, survivors=list(ROSTER[1:]))


@case("openings", "signs a list of survivors a second time")
def two_lists_of_survivors_are_signed_for_one_sum():
    story, plan = base()
    story.charge(plan)
    story.opening(plan, "train/1", 1)
    return story, story.opening(plan, "train/1", 1, survivors=list(ROSTER[:3]), transcript=NOWHERE)


@case("openings", "another list of survivors than it signed")
def shares_are_revealed_for_another_transcript():
    story, plan = base()
    story.charge(plan)
    story.opening(plan, "train/1", 1)
    return story, story.opening(plan, "train/1", 1, "revealed-shares", transcript=NOWHERE)


@case("openings", "another list of survivors than it signed")
def shares_are_revealed_for_other_survivors_under_the_same_digest():
    story, plan = base()
    story.charge(plan)
    story.opening(plan, "train/1", 1)
    return story, story.opening(plan, "train/1", 1, "revealed-shares", survivors=list(ROSTER[:3]))


@case("openings", "another list of survivors than it signed")
def shares_of_another_epoch_are_revealed_than_was_signed_for():
    story, plan = base()
    story.charge(plan)
    place = story.opening(plan, "train/1", 1)
    story.epoch(plan, 2, *rounds()[0])
    told_of = story.parts["entry"][place - 1]["body"]["transcript"]
    return story, story.opening(plan, "train/1", 2, "revealed-shares", transcript=told_of)


@case("openings", "reveals shares a second time")
def shares_are_revealed_twice_with_different_words():
    story, plan = base()
    story.summed(plan, "train/1", 1)
    return story, story.opening(plan, "train/1", 1, "revealed-shares", release=NOWHERE)


@case("openings", "whose survivors it did not sign")
def shares_are_revealed_before_anything_is_signed():
    story, plan = base()
    story.charge(plan)
    return story, story.opening(plan, "train/1", 1, "revealed-shares")


@case("openings", "in an epoch without keys and shares for it")
def a_sum_is_opened_in_an_epoch_that_never_was():
    story, plan = base()
    story.charge(plan)
    return story, story.opening(plan, "train/1", 2)


@case("openings", "in an epoch without keys and shares for it")
def a_sum_is_opened_whose_shares_were_never_dealt():
    story, plan = base()
    story.charge(plan, "train/1")
    story.keys(plan, 2, rounds()[0])
    return story, story.opening(plan, "train/1", 2)


@case("openings", "in an epoch without keys and shares for it")
def a_sum_is_opened_in_an_epoch_of_other_steps():
    story, plan = base()
    story.charge(plan, "train/1")
    story.epoch(plan, 2, *rounds()[1])
    return story, story.opening(plan, "train/1", 2)


@case("openings", "in another epoch than its vector was masked in")
def a_sum_is_opened_in_a_later_epoch_of_the_same_steps():
    story, plan = base()
    story.charge(plan, "train/1")
    story.epoch(plan, 2, *rounds()[0])
    return story, story.opening(plan, "train/1", 2)


@case("openings", "in another epoch than its vector was masked in")
def two_attempts_are_opened_in_one_epoch():
    story, plan = base({"training__spare": 1})
    story.summed(plan, "train/1", 1)
    story.epoch(plan, 2, *rounds()[0])
    story.charge(plan, "train/1", attempt=2)
    return story, story.opening(plan, "train/1", 1, attempt=2)


# --- what vectors were masked with ------------------------------------------------------------------------


def settled(story, plan, step="train/1", **options):
    """Charge and settle a vector; returns the place of the settlement."""
    story.charge(plan, step, **options)
    return story.size


@case("openings", "for which no keys and shares were dealt")
def a_vector_is_settled_without_any_keys():
    story = SumStory()
    plan = story.plan()
    story.consent(plan)
    return story, settled(story, plan)


@case("openings", "for which no keys and shares were dealt")
def a_vector_is_settled_for_which_keys_were_made_and_no_shares_dealt():
    story, plan = base()
    story.keys(plan, 2, rounds()[1])
    return story, settled(story, plan, "train/3")


@case("openings", "for which no keys and shares were dealt")
def a_vector_is_settled_under_another_step_s_keys():
    story, plan = base()
    return story, settled(story, plan, "train/3")


@case("openings", "for which no keys and shares were dealt")
def a_vector_is_settled_under_keys_that_newer_ones_replaced():
    story, plan = base()
    story.epoch(plan, 2, *rounds()[1])
    return story, settled(story, plan)


@case("openings", "for which no keys and shares were dealt")
def a_vector_is_charged_before_its_shares_are_dealt():
    story = SumStory()
    plan = story.plan()
    story.consent(plan)
    story.keys(plan, 1, rounds()[0])
    charge = story.reserve(plan)
    story.keys(plan, 1, rounds()[0], "dealt-shares")
    story.settle(charge)
    return story, story.size


@case("openings", "under keys that masked one before")
def two_attempts_of_one_step_are_settled_under_one_epoch_s_keys():
    story, plan = base({"training__spare": 2})
    story.charge(plan, "train/1")
    return story, settled(story, plan, attempt=2)


@case("openings", "under keys that masked one before")
def three_attempts_are_settled_in_two_epochs():
    story, plan = base({"training__spare": 2})
    story.charge(plan, "train/1")
    story.epoch(plan, 2, *rounds()[0])
    story.charge(plan, "train/1", attempt=2)
    return story, settled(story, plan, attempt=3)


@case("openings", "under keys that masked one before")
def two_histograms_are_settled_under_one_epoch_s_keys():
    story, plan = base({"training__spare": 1})
    story.charge(plan, "evaluate/1")
    return story, settled(story, plan, "evaluate/1", attempt=2)


@case("openings", "a study without consent")
def a_sum_of_a_study_without_consent_is_opened():
    story = SumStory()
    return story, story.opening(story.plan(), "train/1", 1)


@case("entries", "")
def an_opening_says_more_than_openings_say():
    story, plan = base()
    story.charge(plan)
    return story, story.opening(plan, "train/1", 1, masked=5)


@case("entries", "")
def keys_are_of_no_known_kind():
    story, plan = base()
    return story, story.keys(plan, 2, rounds()[1], "secret-keys")


@pytest.mark.parametrize(("tell", "check", "says", "accounting"), CASES)
def test_a_lie_is_found_at_its_entry(tell, check, says, accounting):
    story, place = tell()
    verdict = verdict_of(story.bundle(), accounting=accounting)
    assert failing(verdict) == {check: place}
    found = next(one for one in verdict.checks if one.name == check)
    assert any(says in finding.says for finding in found.findings), [str(finding) for finding in found.findings]


def test_vectors_without_keys_are_found_one_by_one():
    story = SumStory()
    plan = story.plan()
    story.consent(plan)
    places = [settled(story, plan, step) for steps in rounds() for step in steps]
    found = next(one for one in verdict_of(story.bundle()).checks if one.name == "openings")
    assert [finding.entry for finding in found.findings] == places


def test_an_attempt_that_was_lost_used_no_keys():
    story, plan = base({"training__spare": 1})
    story.say("lost", {"reserve": story.reserve(plan)})
    story.charge(plan, "train/1", attempt=2)
    story.open(plan, "train/1", 1, attempt=2)
    assert not failing(verdict_of(story.bundle()))


def test_a_vector_that_is_settled_when_a_newer_epoch_was_begun_belongs_to_the_one_that_it_was_charged_in():
    story, plan = base({"training__spare": 1})
    charge = story.reserve(plan)
    story.epoch(plan, 2, *rounds()[0])
    story.settle(charge)
    story.charge(plan, "train/1", attempt=2)
    story.open(plan, "train/1", 2, attempt=2)
    assert not failing(verdict_of(story.bundle()))


@pytest.mark.parametrize(("field", "value"), [("threshold", 4), ("colluders", 2), ("trust", "local")])
def test_a_plan_that_was_edited_after_it_was_signed_is_not_believed(field, value):
    story, plan = told()
    bundle = story.opened()
    bundle.parts["plan"][0]["plan"]["privacy"][field] = value
    bundle.rename(plan.digest(), digest(bundle.parts["plan"][0]["plan"]))
    verdict = verdict_of(resigned(bundle, story.partner, story.coordinator))
    found = next(one for one in verdict.checks if one.name == "consents")
    assert (found.status, found.findings[0].entry) == ("fails", 3)
    assert found.findings[0].says.startswith("its plan")
    # Nothing of the edited plan is told as if it were so.
    assert verdict.studies[0].trust == ""
    # Without the digests' being moved along, it is a plan that nobody consented to.
    story.parts["plan"][0]["plan"]["privacy"][field] = value
    assert wanting(verdict_of(story.bundle()))["consents"] == ("open", 3)


def test_rules_that_need_the_plan_are_left_open_where_the_bundle_lacks_it():
    story, plan = base()
    story.charge(plan)
    story.open(plan, "train/1", 1, survivors=["amber", "elder", "birch"])
    story.opening(plan, "train/9", 1)
    story.parts["plan"].clear()
    verdict = verdict_of(story.bundle())
    assert wanting(verdict)["consents"][0] == "open"
    assert wanting(verdict)["openings"] == ("fails", story.size)  # no charge, whatever the plan says
    assert verdict.studies[0].openings is None


@pytest.mark.parametrize("changes", [{}, {"privacy__trust": "local"}], ids=["secure", "local"])
def test_leaving_a_plan_out_does_not_leave_the_question_out(changes):
    story = SumStory()
    plan = story.plan(**changes)
    story.consent(plan)
    if not changes:
        story.epoch(plan, 1, *rounds()[0])
    story.charge(plan)
    story.parts["plan"].clear()
    verdict = verdict_of(story.bundle())
    (entry,) = [study.entry for study in verdict.studies]
    found = {check.name: check for check in verdict.checks}
    assert wanting(verdict)["consents"] == ("open", entry)
    assert ("openings" in found) == (not changes)
    if not changes:
        # What needs no plan was held against it; what does was not decided, and is not said to hold.
        assert wanting(verdict)["openings"] == ("open", entry)
        assert "over which partners" in found["openings"].findings[0].says


def test_keys_ask_the_question_whatever_a_consent_without_its_plan_declares():
    story = SumStory()
    plan = story.plan()
    events = calibrate(story.plan(privacy__trust="local"))
    told_of = {name: event_to_dict(getattr(events, name)) for name in ("update", "histogram")}
    story.consent(
        plan, **told_of, update_curve=list(curve([events.update])), histogram_curve=list(curve([events.histogram]))
    )
    story.epoch(plan, 1, *rounds()[0])
    story.parts["plan"].clear()
    assert wanting(verdict_of(story.bundle()))["openings"] == ("open", 3)


def test_vectors_without_keys_are_found_without_the_plan():
    story = SumStory()
    plan = story.plan()
    story.consent(plan)
    place = settled(story, plan)
    story.parts["plan"].clear()
    assert failing(verdict_of(story.bundle())) == {"openings": place}


# --- figures ----------------------------------------------------------------------------------------------

WHOLE = {"training__sample_rate": 1.0}  # a rate of 1 has closed forms


@pytest.fixture(scope="module")
def unsampled():
    """A verdict on a study whose steps take every customer."""
    story = SumStory()
    plan = story.plan(**WHOLE)
    story.consent(plan)
    story.epoch(plan, 1, *rounds()[0])
    for step in rounds()[0]:
        story.summed(plan, step, 1)
    return verdict_of(story.bundle(), accounting=True)


def gaussian_epsilon(mu, delta):
    """Epsilon of a Gaussian mechanism whose sensitivity is mu noise scales (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon):
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)) - delta

    return brentq(excess, 0, 200)


def test_a_person_at_several_partners_moves_one_sum_by_several_sensitivities(unsampled):
    (study,) = unsampled.studies
    found = composition(unsampled, study)
    shown = dict(by_partners(found))
    assert set(shown) == {1, 2, 3, 4}
    delta = found.delta
    scales = {group: event.noise_multiplier for group, (event, *_) in found.allowed.items()}
    counts = {group: len(events) for group, events in found.allowed.items()}
    for k, bound in shown.items():
        # In the training group at t partners and held out at the others: every sum of a group moves by so many.
        mixtures = [
            sum(counts[g] * (n / scales[g]) ** 2 for g, n in ((TRAINING, t), (HOLDOUT, k - t))) for t in range(k + 1)
        ]
        exact = gaussian_epsilon(math.sqrt(max(mixtures)), delta)
        assert exact <= bound <= 1.02 * exact
        # As if every partner had noise of its own: too little, from two partners on.
        own = max(
            sum(counts[g] * n / scales[g] ** 2 for g, n in ((TRAINING, t), (HOLDOUT, k - t))) for t in range(k + 1)
        )
        assert k == 1 or bound > 1.2 * gaussian_epsilon(math.sqrt(own), delta)


def test_composition_over_ledgers_for_life_shares_the_noise_too(unsampled):
    found = dict(for_life([unsampled] * 3, 1e-5))
    (study,) = unsampled.studies
    for k, bound in found.items():
        most = max(k * math.sqrt(group.charges) / group.allowed[0][0].noise_multiplier for group in study.groups)
        exact = gaussian_epsilon(most, 1e-5)
        assert exact <= bound <= 1.3 * exact
    assert unsampled.life["training"] == pytest.approx(_life(unsampled, "training"))


def _life(verdict, group):
    spent = next(one for one in verdict.studies[0].groups if one.group == group)
    return [spent.charges * order / 2 / spent.allowed[0][0].noise_multiplier ** 2 for order in ORDERS]


def test_a_replaced_customer_moves_a_sum_by_two_sensitivities(unsampled):
    found = composition(unsampled, unsampled.studies[0])
    worst = max(
        math.sqrt(len(found.allowed[group])) * 2 / found.allowed[group][0].noise_multiplier
        for group in (TRAINING, HOLDOUT)
    )
    assert replaced(found).first == pytest.approx(gaussian_epsilon(worst, found.delta), rel=0.02)


def test_the_table_by_partners_is_the_statement_s(truth):
    found = composition(truth, truth.studies[0])
    said = statement(found.plan, calibrate(found.plan))
    table = {row["partners"]: row["epsilon"] for row in said["multiplicity"]}
    assert dict(by_partners(found)) == pytest.approx(table, rel=1e-6)
    assert matches_plan(found) == ()


def test_what_is_charged_otherwise_than_the_plan_does_is_told(truth):
    found = composition(truth, truth.studies[0])
    (update, *_), (histogram, *_) = found.allowed[TRAINING], found.allowed[HOLDOUT]

    def wrong(training, holdout):
        return matches_plan(dataclasses.replace(found, allowed={TRAINING: training, HOLDOUT: holdout}))

    sums, counts = (update,) * 4, (histogram,) * 2
    assert wrong(sums, counts) == ()
    assert "another rate" in wrong((PoissonGaussian(1.0, 0.3, 1),) * 4, counts)[0]
    assert "another number of steps" in wrong((dataclasses.replace(update, steps=2),) * 4, counts)[0]
    assert "honest partners" in wrong(sums, (dataclasses.replace(histogram, shares=3),) * 2)[0]
    assert "number of updates" in wrong((update,) * 2, counts)[0]


# --- words ------------------------------------------------------------------------------------------------


def test_facts_say_who_is_trusted_how_many_sums_were_opened_and_what_is_not_credited(truth):
    told_of = {(fact.topic, fact.name): fact for fact in facts(truth, truth.studies[0])}
    assert told_of["trust", "least partners over whom a sum is opened"].value == "3 of 4"
    assert told_of["trust", "partners who may help the coordinator, at most"].value == "1"
    assert "2 honest partners" in told_of["trust", "who must add their noise and keep their keys"].value
    assert "1.41 times" in told_of["trust", "surplus noise when all are honest"].value
    assert "never credited" in told_of["trust", "surplus noise when all are honest"].value
    sums = told_of["trust", "secure sums"]
    assert "6 sums" in sums.value
    assert "at least 3 partners" in sums.value
    assert sums.basis == VERIFIED
    units = told_of["contribution bound", "greatest length in units, group training"]
    assert f"{UPDATE.sensitivity}, beside noise of scale {UPDATE.share}" in units.value
    assert told_of["several partners", "customer of 4 partners"].basis == RECOMPUTED
    text = " ".join(fact.value for fact in told_of.values())
    assert "adds all its own noise" not in text
    assert "float64" not in text
    assert "an update" not in told_of["sampling", "rate"].value
    assert {topic for topic, *_ in declared("secure-aggregation")} == {topic for topic, *_ in declared("local")}


def test_an_opening_that_is_not_believed_is_told_as_a_claim():
    story, plan = base()
    story.opening(plan, "train/1", 1)
    verdict = verdict_of(story.bundle())
    sums = next(fact for fact in facts(verdict, verdict.studies[0]) if fact.name == "secure sums")
    assert sums.basis != VERIFIED
    assert 'the check "openings" fails' in sums.value


def section(verdict, title):
    return " ".join(next(one for one in explain(verdict) if one.title.startswith(title)).paragraphs)


def test_the_explanation_says_who_must_be_trusted(truth):
    words = section(truth, "Who is protected against whom")
    for said in (
        "among 4 partners",
        "at least 3 of them",
        "up to 1 of the partners",
        "at least 2 must add",
        "1.41 times",
    ):
        assert said in words
    assert "not credited" in words
    assert "signed the survivors of 6 sums and gave its shares to open 6 of them, each over at least 3" in words
    assert "Nobody outside the partner needs to be trusted" not in words
    assert "could not be told" not in words
    assert "row by row" in section(truth, "What is not covered")
    assert "more partners than the plan's colluders" in section(truth, "What is not covered")
    assert "other partners added their noise" in section(truth, "What is assumed")
    assert "Secure" in section(truth, "What no file can prove") or "secure" in section(truth, "What no file can prove")


def test_studies_of_both_kinds_are_explained_side_by_side():
    story, _ = told()
    local = story.plan(name="alone", privacy__trust="local")
    story.consent(local)
    words = section(verdict_of(story.bundle()), "Who is protected against whom")
    assert "Nobody outside the partner needs to be trusted" in words
    assert "For studies without secure aggregation" in words
    assert "Study “spring”" in words
    uncovered = section(verdict_of(story.bundle()), "What is not covered")
    for trust in ("local", "secure-aggregation"):
        for text in not_covered(trust):
            assert uncovered.count(text) == 1


def test_a_ledger_without_openings_says_so():
    story = SumStory()
    story.consent(story.plan())
    assert "helped to open no sum" in section(verdict_of(story.bundle()), "Who is protected against whom")


def test_record_assessment_and_page_tell_of_secure_sums(truth):
    record = registry_record(truth, truth.studies[0])["deployment"]
    assert "Only sums over several partners" in record["model"]["model_name_description"]
    assert "Opened sums" in record["accounting"]["post_processing"]
    assert "the plan's colluders" in record["dp_flavor"]["unprotected_quantities"]
    assert "secure sums" in record["model"]["actors"]
    draft = impact_draft(truth)
    assert "only sums over at least 3 of them are opened" in draft
    assert "adds all its own noise" not in draft
    page = render([Reviewed(truth)])
    assert "6 secure sums opened, each over at least 3 partners." in page


def test_a_later_bundle_with_fewer_opened_sums_is_found():
    story, plan = base()
    story.summed(plan, "train/1", 1)
    once = verdict_of(story.bundle())
    story.summed(plan, "train/2", 1)
    twice = verdict_of(story.bundle())
    assert any("1 secure sums opened then" in line for line in difference(once, twice).lines())
    assert not any("opened sums" in finding for finding in difference(once, twice).findings)
    story.parts["entry"].pop()
    story.charge(plan, "evaluate/1")
    assert any("fewer opened sums" in one for one in difference(twice, verdict_of(story.bundle())).findings)


# --- the partner's own ledger -----------------------------------------------------------------------------


def test_keys_and_openings_let_their_releases_out_and_nothing_else(tmp_path):
    story, _ = told()
    Ledger.create(tmp_path / "ledger")
    with Ledger(tmp_path / "ledger", today) as ledger:
        for entry in story.parts["entry"]:
            if entry["kind"] in {"keys", "opening"}:
                assert not ledger.paid_for(entry["body"]["release"])
                ledger.record(entry["kind"], entry["body"])
                assert ledger.paid_for(entry["body"]["release"])
                named = entry["body"].get("transcript", entry["body"]["plan"])
                assert not ledger.paid_for(named)
