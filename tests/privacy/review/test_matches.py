"""Matches in a ledger: what must be paid for or permitted, fixed once and kept within quotas; every lie is found."""

import dataclasses
import datetime

import pytest

from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.canonical import digest
from coterie.privacy.charges import Charge
from coterie.privacy.entries import charge_body
from coterie.privacy.events import DiscreteGaussian, event_to_dict
from coterie.privacy.plan import Matching, Split
from coterie.privacy.record import Receipt
from coterie.privacy.review.composition import by_partners, composition, matches_plan
from coterie.privacy.review.cross import cross_check
from coterie.privacy.review.difference import difference
from coterie.privacy.review.explain import explain
from coterie.privacy.review.facts import TOPICS, facts
from coterie.privacy.review.impact import impact_draft
from coterie.privacy.review.page.content import Reviewed
from coterie.privacy.review.page.outlook import outlook
from coterie.privacy.review.page.render import render
from coterie.privacy.review.registry import registry_record
from coterie.privacy.schedule import COUNTED
from coterie.tests.clients.federation import NAMES
from coterie.tests.privacy.review.bundles import Story, failing, verdict_of, wanting
from coterie.tests.privacy.review.matchstory import PERMITS, RULES, MatchStory

OF_TRAINING = ("model update", "Model update", "histogram", "gradient", "trained on together")
CASES = []


def begun(outcome: str = "counts", **rules):
    """A story with a consent to a match."""
    story = MatchStory(**rules)
    plan = story.match(outcome)
    story.consent(plan)
    return story, plan


def case(check, says, status="fails"):
    """Register a history: the function returns its story and the entry that is to be named."""

    def register(tell):
        CASES.append(pytest.param(tell, check, says, status, id=tell.__name__.replace("_", " ")))
        return tell

    return register


@case("matching", "before its own was paid for by both groups, or disclosed")
def lists_are_accepted_before_one_of_its_own():
    story, plan = begun()
    return story, story.agree(plan)


@case("matching", "before its own was paid for by both groups, or disclosed")
def a_list_that_one_group_of_customers_paid_for():
    story, plan = begun()
    story.pay(plan, TRAINING)
    return story, story.agree(plan)


@case("matching", "paid for by one group of customers alone")
def a_list_that_left_and_one_group_paid_for():
    story, plan = begun()
    story.pay(plan, HOLDOUT)
    return story, 3


@case("matching", "another list than the charge to the other group")
def two_lists_that_one_group_each_paid_for():
    story, plan = begun()
    story.pay(plan, TRAINING)
    return story, story.pay(plan, HOLDOUT, release="another")[0] + 1


@case("matching", "other lists for a match whose lists were fixed before")
def a_second_manifest():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    return story, story.agree(plan, "others")


@case("matching", "whose lists it had not accepted")
def a_piece_before_the_lists_were_fixed():
    story, plan = begun()
    story.pay(plan)
    return story, story.tell(plan, "match-parcel", list="amber", hop=0, index=0)


@case("matching", "whose lists it had not accepted")
def counts_before_the_lists_were_fixed():
    story, plan = begun()
    story.pay(plan)
    return story, story.tell(plan, "overlap-counts")


@case("matching", "a second time, as another one")
def a_piece_that_is_handed_on_twice():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    body = {"plan": plan.digest(), "what": "match-parcel", "list": "amber", "hop": 0, "index": 0}
    story.say("match", {**body, "release": digest(1)})
    return story, story.say("match", {**body, "release": digest(2)})


@case("matching", "without saying which")
def a_piece_of_no_list():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    return story, story.tell(plan, "match-parcel", list="amber")


@case("matching", "not in the roster")
def a_list_of_a_stranger():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    return story, story.tell(plan, "parcel-taken", list="mallory", hop=0, index=0, points=1)


@case("matching", "more points than the lists have")
def more_evaluations_than_were_agreed_to():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan, evaluations=1500)
    story.tell(plan, "parcel-taken", list="birch", hop=0, index=0, points=1000)
    return story, story.tell(plan, "parcel-taken", list="cedar", hop=0, index=0, points=501)


@case("matching", "after its secrets were said to be destroyed")
def a_piece_after_the_end():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    story.tell(plan, "match-ended")
    return story, story.tell(plan, "match-parcel", list="amber", hop=0, index=0)


@case("matching", "not to count")
def counts_by_somebody_who_is_not_to_count():
    story = MatchStory()
    plan = story.match(matching=Matching(identifier="email", outcome="counts", teller="birch"))
    story.consent(plan)
    story.pay(plan)
    story.agree(plan)
    return story, story.tell(plan, "overlap-counts")


@case("matching", "counts of a match a second time")
def counts_twice():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    body = {"plan": plan.digest(), "what": "overlap-counts"}
    story.say("match", {**body, "release": digest(1)})
    return story, story.say("match", {**body, "release": digest(2)})


@case("matching", "evaluations in a year than the policy permits")
def more_evaluations_in_a_year_than_are_permitted():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan, evaluations=3000)
    second = story.match(name="again")
    story.consent(second)
    story.pay(second, release="second")
    return story, story.agree(second, "second", evaluations=2001)


@case("matching", "more matches in a year than the policy permits")
def more_disclosures_in_a_year_than_are_permitted():
    story = MatchStory()
    for name in ("one", "two", "three"):
        plan = story.match("rows", name=name)
        story.consent(plan)
        place = story.disclose(plan, release=name)
    return story, place


@case("matching", "without the permit of the policy in force")
def a_disclosure_that_the_policy_does_not_permit_any_more():
    story, plan = begun("tokens")
    story.rule(**{**PERMITS, "matching": {**RULES, "outcomes": ["counts", "rows"]}})
    return story, story.disclose(plan)


@case("matching", "something else, or to others, than the plan says")
def a_disclosure_of_tokens_where_the_plan_has_rows():
    story, plan = begun("rows")
    return story, story.disclose(plan, outcome="tokens")


@case("matching", "something else, or to others, than the plan says")
def a_disclosure_to_a_partner_who_is_not_in_the_plan():
    story, plan = begun("rows")
    return story, story.disclose(plan, partners=[*NAMES, "mallory"])


@case("matching", "something else, or to others, than the plan says")
def a_disclosure_for_another_purpose():
    story, plan = begun("rows")
    return story, story.disclose(plan, purpose="calls")


@case("matching", "something else, or to others, than the plan says")
def a_disclosure_where_the_plan_counts():
    story, plan = begun("counts")
    return story, story.disclose(plan, outcome="rows")


@case("matching", "another list after the lists of the match were fixed")
def a_second_list_after_the_manifest():
    story, plan = begun("rows")
    story.disclose(plan)
    story.agree(plan)
    return story, story.disclose(plan, release="another")


@case("matching", "never consented to")
def a_disclosure_without_consent():
    story = MatchStory()
    return story, story.disclose(story.match("rows"))


@case("matching", "had expired")
def a_disclosure_after_the_last_day():
    story, plan = begun("rows")
    story.now = datetime.datetime(2032, 1, 1, tzinfo=datetime.UTC)
    return story, story.disclose(plan)


@case("matching", "the plan does not have")
def a_disclosure_of_a_study_that_matches_nothing():
    story = MatchStory()
    plan = story.plan()
    story.consent(plan)
    body = {"plan": plan.digest(), "manifest": digest("x"), "release": digest("y"), "evaluations": 1}
    return story, story.say("manifest", body)


@case("matching", "had declined")
def a_match_that_goes_on_after_the_operator_s_no():
    story, plan = begun("rows")
    story.say("approval", {"plan": plan.digest(), "decision": "declined", "by": "operator"})
    return story, story.disclose(plan)


@case("consents", "did not permit the plan (matching)")
def a_consent_to_a_match_without_rules_for_one():
    story = MatchStory(matching={**RULES, "outcomes": ["rows"]})
    plan = story.match()
    return story, story.consent(plan)


@case("consents", "another mechanism for its match")
def a_consent_that_declares_no_charge_for_counts():
    story = MatchStory()
    plan = story.match()
    place = story.consent(plan)
    for name in ("overlap", "overlaps"):
        del story.parts["entry"][place - 1]["body"][name]
    return story, place


@case("consents", "another number of lists")
def a_consent_that_declares_more_lists_than_the_plan_has():
    story = MatchStory()
    return story, story.consent(story.match(), overlaps=2)


@case("consents", "another mechanism for its match")
def a_consent_to_a_disclosure_that_declares_a_charge():
    story = MatchStory()
    return story, story.consent(story.match("rows"), overlap=event_to_dict(DiscreteGaussian(9.0, 1)), overlaps=1)


@case("charges", "a list for a match, of which the consent knows none")
def a_charge_for_a_list_of_a_study_that_matches_nothing():
    story = MatchStory()
    plan = story.plan()
    story.consent(plan)
    event = DiscreteGaussian(9.0, 1)
    charge = Charge(plan.digest(), plan.purpose, "match/training", 1, TRAINING, event, "os")
    return story, story.say("reserve", charge_body(charge))


@case("charges", "another event or purpose")
def a_list_that_is_charged_with_more_noise_than_was_consented_to():
    story, plan = begun()
    event = DiscreteGaussian(calibrate(plan).overlap.sigma * 2, 1)
    return story, story.pay(plan, event=event)[0]


@case("charges", "another group than its step touches")
def a_list_whose_step_names_another_group():
    story, plan = begun()
    return story, story.pay(plan, TRAINING, group=HOLDOUT)[0]


@case("charges", "a second time")
def a_list_that_is_charged_twice():
    story, plan = begun()
    story.pay(plan)
    return story, story.pay(plan)[0]


@case("receipts", "no charge paid for")
def counts_that_this_ledger_did_not_release():
    story, plan = begun()
    story.pay(plan)
    story.agree(plan)
    story.work(plan)
    story.receive_counts(plan, Receipt("amber", COUNTED, 1, digest("others")))
    return story, story.size


@pytest.mark.parametrize(("tell", "check", "says", "status"), CASES)
def test_a_lie_about_a_match_is_found_at_its_entry(tell, check, says, status):
    story, place = tell()
    verdict = verdict_of(story.bundle())
    found = next(one for one in verdict.checks if one.name == check)
    assert found.status == status, wanting(verdict)
    assert any(one.entry == place and says in one.says for one in found.findings), [str(f) for f in found.findings]


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_a_whole_match_holds_and_is_asked_about(outcome):
    story = MatchStory()
    story.whole(outcome)
    verdict = verdict_of(story.bundle())
    assert failing(verdict) == {}
    assert next(check.status for check in verdict.checks if check.name == "matching") == "holds"
    (told,) = verdict.studies
    assert (told.matched.evaluations, told.matched.evaluated, told.matched.parcels) == (2000, 2000, 3)
    assert (told.matched.counts, told.matched.ended) == (outcome == "counts", True)
    assert len(verdict.disclosures) == (outcome != "counts")


def test_a_ledger_without_matches_is_not_asked_about_them():
    story = Story()
    plan = story.plan()
    story.consent(plan)
    assert "matching" not in {check.name for check in verdict_of(story.bundle()).checks}


def test_what_is_said_again_after_a_crash_is_no_lie():
    story, plan = begun()
    story.pay(plan)
    for _ in range(2):
        story.agree(plan, evaluations=3000)  # twice 3000 would be beyond the year's 5000
        story.tell(plan, "match-parcel", list="amber", hop=0, index=0)
    story.tell(plan, "parcel-taken", list="birch", hop=1, index=0, points=3000)
    story.tell(plan, "parcel-taken", list="birch", hop=3, index=0, points=3000)  # it comes back to be counted
    assert failing(verdict_of(story.bundle())) == {}


def test_quotas_are_of_a_year_and_the_next_year_begins_anew():
    story = MatchStory()
    for year, names in ((2031, ("one", "two")), (2032, ("three", "four"))):
        story.now = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC)
        for name in names:
            plan = story.match("rows", name=name, expires=datetime.date(2033, 1, 1))
            story.consent(plan)
            story.disclose(plan, release=name)
            story.agree(plan, name, evaluations=2500)
    assert failing(verdict_of(story.bundle())) == {}


def test_an_open_second_charge_is_no_lie_yet():
    story, plan = begun()
    event = calibrate(plan).overlap
    places = [
        story.say("reserve", charge_body(Charge(plan.digest(), plan.purpose, f"match/{g}", 1, g, event, "os")))
        for g in (TRAINING, HOLDOUT)
    ]
    story.say("settle", {"reserve": places[0], "release": digest("list")})
    assert failing(verdict_of(story.bundle())) == {}


def test_a_match_is_charged_to_both_groups_and_two_accountants_agree():
    story = MatchStory()
    plan = story.whole()
    verdict = verdict_of(story.bundle(), accounting=True)
    assert failing(verdict) == {}
    (told,) = verdict.studies
    for group in told.groups:
        assert group.recomputed.agrees
        assert 0.9 * plan.privacy.epsilon < group.recomputed.first <= plan.privacy.epsilon * (1 + 1e-9)
    found = composition(verdict, told)
    assert matches_plan(found) == ()
    assert [k for k, _ in by_partners(found)] == [1, 2, 3]
    assert {budget.group: budget.share > 0 for budget in verdict.budgets} == {TRAINING: True, HOLDOUT: True}


def test_a_match_spends_all_of_epsilon_on_both_groups_however_the_plan_splits_it():
    story = MatchStory()
    story.whole(privacy__split=Split(training=0.5, metrics=0.25))
    verdict = verdict_of(story.bundle(), accounting=True)
    assert failing(verdict) == {}
    assert len({group.recomputed.first for group in verdict.studies[0].groups}) == 1


def test_a_match_with_less_noise_than_its_plan_leads_to_is_found():
    story = MatchStory()
    plan = story.match()
    event = DiscreteGaussian(round(calibrate(plan).overlap.sigma * 0.9, 3), 1)
    place = story.consent(plan, overlap=event_to_dict(event))
    verdict = verdict_of(story.bundle(), accounting=True)
    assert failing(verdict)["accountants"] == place


def test_partners_who_accepted_different_lists_are_found_by_their_bundles():
    verdicts = []
    for lists in ("these", "those"):
        story, plan = begun("rows")
        story.disclose(plan)
        story.agree(plan, lists)
        verdicts.append(verdict_of(story.bundle()))
    same = dataclasses.replace(verdicts[1], plans=verdicts[0].plans)
    told = dataclasses.replace(same.studies[0], plan=verdicts[0].studies[0].plan)
    check = cross_check([verdicts[0], dataclasses.replace(same, studies=(told,))])
    assert any("accepted different lists for one match" in found.says for found in check.findings)
    one = dataclasses.replace(verdicts[0].studies[0].matched, manifest=told.matched.manifest)
    agreed = dataclasses.replace(verdicts[0], studies=(dataclasses.replace(verdicts[0].studies[0], matched=one),))
    again = cross_check([agreed, dataclasses.replace(same, studies=(told,))])
    assert not any("different lists" in found.says for found in again.findings)


# --- what is said ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["rows", "tokens"])
def test_a_disclosure_is_said_to_be_not_covered_by_epsilon_wherever_it_is_told(outcome):
    story = MatchStory()
    plan = story.whole(outcome)
    verdict = verdict_of(story.bundle(), accounting=True)
    (told,) = verdict.studies
    assert "1 disclosure is not covered by epsilon" in verdict.line
    sections = explain(verdict)
    shown = {
        "explanation": "\n".join(text for one in sections for text in one.paragraphs),
        "facts": "\n".join(fact.value for fact in facts(verdict, told)),
        "assessment": impact_draft(verdict),
        "page": render([Reviewed(verdict)]),
        "registry": registry_record(verdict, told)["deployment"]["dp_flavor"]["unprotected_quantities"],
    }
    for name, text in shown.items():
        assert "not covered by epsilon" in text.lower(), name
        assert outcome in text, name
        assert "coupons" in text, name
        assert all(partner in text for partner in NAMES), name
        assert not any(word in text for word in OF_TRAINING if name != "page"), name
    assert any("Disclosures" in one.title for one in sections)
    assert composition(verdict, told) is None  # no figure is less wrong than another
    assert "no figure can be given" in shown["explanation"]
    assert {group.recomputed for group in told.groups} == {group.claimed for group in told.groups} == {None}
    assert told.epsilon is None
    assert "No model was received." in shown["page"]
    assert "Disclosures are in none of these budgets" in shown["explanation"]
    assert outlook(verdict) is None
    assert all(budget.runs == () for budget in verdict.budgets)  # no number of disclosures "fits"
    assert {fact.topic for fact in facts(verdict, told)} == set(TOPICS)
    disclosed = [fact for fact in facts(verdict, told) if fact.name.startswith("disclosure, entry")]
    assert [fact.basis for fact in disclosed] == ["verified"]
    assert plan.name in shown["page"]


def test_a_match_that_counts_is_told_in_words_of_its_own():
    story = MatchStory()
    story.whole()
    verdict = verdict_of(story.bundle(), accounting=True)
    (told,) = verdict.studies
    words = "\n".join(text for one in explain(verdict) for text in one.paragraphs)
    assert "1 list was paid for, by the customers of both groups" in words
    assert "It counted, and released noisy counts." in words
    assert "not covered by epsilon" not in verdict.line
    assert not any("Disclosures" in one.title for one in explain(verdict))
    for text in (words, "\n".join(f"{f.name} {f.value}" for f in facts(verdict, told)), impact_draft(verdict)):
        assert not any(word in text.replace("noisy histograms", "") for word in OF_TRAINING), text
    assert {fact.topic for fact in facts(verdict, told)} == set(TOPICS)
    assert registry_record(verdict, told)["deployment"]["product"]["data_product_type"] == "Overlap of customers"


def test_a_new_disclosure_is_a_difference_and_one_that_vanished_is_a_finding():
    story, plan = begun("rows")
    old = verdict_of(story.bundle())
    story.disclose(plan)
    new = verdict_of(story.bundle())
    found = difference(old, new)
    assert len(found.disclosures) == 1
    assert any("not covered by epsilon" in line for line in found.lines())
    back = difference(new, old)
    assert any("disclosure of the old ledger" in finding for finding in back.findings)


def test_a_study_that_trains_beside_a_disclosure_keeps_its_own_words():
    story = MatchStory()
    trained = story.plan()
    story.consent(trained)
    match = story.match("rows", name="first")
    story.consent(match)
    story.disclose(match)
    verdict = verdict_of(story.bundle())
    words = "\n".join(text for one in explain(verdict) for text in one.paragraphs)
    assert "every figure of this file is without them" in words
    assert "Nobody outside the partner needs to be trusted" in words
