"""The reviewer finds a study that ran although nobody had approved it, or after the operator had said no."""

import pytest

from coterie.clients.deciding import Decision, decide
from coterie.privacy.compliance import APPROVED, DECLINED
from coterie.tests.clients.federation import NAMES, secure_study
from coterie.tests.clients.summing import Summing
from coterie.tests.privacy.review.bundles import (
    Story,
    began,
    exported,
    failing,
    folder,
    opened,
    resigned,
    verdict_of,
    wanting,
)

NOBODY = {"approval": {"automatic_epsilon": 0.1}}
WAITED, DECLINED_WORDS = "neither the partner's operator nor the policy had approved", "operator had declined"


def told(story, plan, decision, **changes):
    return story.say("approval", {"plan": plan.digest(), "decision": decision, "by": "operator", **changes})


def says(bundle, check):
    (found,) = [c for c in verdict_of(bundle).checks if c.name == check]
    return [(finding.entry, finding.says) for finding in found.findings]


def ran(story, plan):
    """Consent to a plan and charge for it once."""
    return story.consent(plan), story.charge(plan)


HOLDS = {
    "an approval before the consent": (NOBODY, ["approved"]),
    "a no, and then a yes": (NOBODY, ["declined", "approved"]),
    "a plan within the limits of the policy": ({}, []),
    "a plan of a purpose within them": ({"approval": {"automatic_epsilon": 4, "purposes": ["coupons"]}}, []),
}
LIES = {
    "no word at all": (NOBODY, [], WAITED),
    "a policy that approves nothing": ({"approval": {"automatic_epsilon": 4, "purposes": ["calls"]}}, [], WAITED),
    "an epsilon just above": ({"approval": {"automatic_epsilon": 3.999}}, [], WAITED),
    "a no": (NOBODY, ["declined"], DECLINED_WORDS),
    "a no to what the policy approves": ({}, ["declined"], DECLINED_WORDS),
    "a yes, and then a no": (NOBODY, ["approved", "declined"], DECLINED_WORDS),
}


@pytest.mark.parametrize("name", HOLDS)
def test_a_study_that_was_approved_when_it_was_consented_to_holds(name):
    rules, words = HOLDS[name]
    story = Story(**rules)
    plan = story.plan()
    for word in words:
        told(story, plan, word, **({"reason": "thought again"} if word == "approved" else {}))
    ran(story, plan)
    assert failing(verdict_of(story.bundle())) == {}


@pytest.mark.parametrize("name", LIES)
def test_a_consent_and_a_charge_without_an_approval_are_named(name):
    rules, words, why = LIES[name]
    story = Story(**rules)
    plan = story.plan()
    for word in words:
        told(story, plan, word)
    consent, charge = ran(story, plan)
    bundle = story.bundle()
    assert failing(verdict_of(bundle)) == {"consents": consent, "charges": charge}
    assert [(entry, why in text) for entry, text in says(bundle, "consents")] == [(consent, True)]
    assert [(entry, why in text) for entry, text in says(bundle, "charges")] == [(charge, True)]


def test_an_approval_that_comes_after_the_consent_is_none_for_it():
    story = Story(**NOBODY)
    plan = story.plan()
    consent = story.consent(plan)
    told(story, plan, "approved")
    story.charge(plan)
    assert failing(verdict_of(story.bundle())) == {"consents": consent}


def test_a_consent_carried_over_from_before_there_were_approvals_is_not_approved_by_a_later_one():
    story = Story(**NOBODY)
    plan = story.plan()
    story.consent(plan)
    told(story, plan, "approved")
    first, rules, consent, word = story.parts["entry"]
    first["body"]["carried"] = 1
    story.parts["entry"] = [consent, first, word, rules]
    bundle = story.bundle()
    assert failing(verdict_of(bundle)) == {"consents": 1}
    assert [(entry, WAITED in text) for entry, text in says(bundle, "consents")] == [(1, True)]


def test_the_approval_of_another_plan_is_none():
    story = Story(**NOBODY)
    told(story, story.plan(name="other"), "approved")
    consent, charge = ran(story, story.plan())
    assert failing(verdict_of(story.bundle())) == {"consents": consent, "charges": charge}


def test_every_charge_after_a_no_is_named_and_none_before_it_or_after_the_next_yes():
    story = Story()
    plan = story.plan(training__rounds=6, metrics__rounds=(6,))
    story.consent(plan)
    story.charge(plan, "train/1")
    told(story, plan, "declined", reason="enough")
    late = [story.charge(plan, f"train/{number}") for number in (2, 3)]
    told(story, plan, "approved")
    story.charge(plan, "train/4")
    bundle = story.bundle()
    assert [entry for entry, text in says(bundle, "charges") if DECLINED_WORDS in text] == late
    assert failing(verdict_of(bundle)) == {"charges": late[0]}


def test_a_no_is_found_even_where_the_bundle_keeps_the_plan_back():
    story = Story()
    plan = story.plan()
    consent = story.consent(plan)
    told(story, plan, "declined")
    charge = story.charge(plan)
    story.parts["plan"].clear()
    verdict = verdict_of(story.bundle())
    assert failing(verdict) == {"charges": charge}
    assert wanting(verdict)["consents"] == ("open", consent)


def test_a_charge_after_the_rule_is_gone_that_approved_its_plan_is_named():
    story = Story()
    plan = story.plan()
    story.consent(plan)
    story.charge(plan, "train/1")
    story.rule(**NOBODY)
    late = story.charge(plan, "train/2")
    assert failing(verdict_of(story.bundle())) == {"charges": late}


def test_what_a_real_partner_does_with_its_operators_word_holds_and_without_the_word_it_does_not():
    federation = began()
    for name in NAMES:
        federation.policy(name, approval=None)
        federation.propose(name)
        decide(federation.folders[name], federation.digest, Decision(APPROVED, "officer"), clock=federation.clock)
    federation.run()
    decide(
        federation.folders["amber"], federation.digest, Decision(DECLINED, "officer", "no more"), clock=federation.clock
    )
    bundle = exported(federation)
    assert wanting(verdict_of(bundle)) == {}
    lie = opened(bundle)
    lie.remove(lie.at("approval"))
    forged = resigned(lie, federation.workspace().identity, federation.coordinator)
    assert failing(verdict_of(forged)) == {"consents": lie.at("consent"), "charges": lie.at("reserve")}


def test_a_secure_sum_that_goes_on_after_a_no_is_named():
    plan = secure_study(training__rounds=1, metrics__rounds=(1,))
    federation = Summing(folder() / "federation", plan).consent().set_up()
    federation.open()
    lie = opened(exported(federation))
    place = lie.at("opening")
    word = {"plan": federation.digest, "decision": "declined", "by": "operator"}
    lie.insert(place, "approval", word)
    forged = resigned(lie, federation.workspace().identity, federation.coordinator)
    found = [(entry, text) for entry, text in says(forged, "openings") if DECLINED_WORDS in text]
    assert [entry for entry, _ in found] == [place + 1, place + 2]


def test_an_approval_of_another_word_or_without_its_author_is_no_entry():
    for body in ({"decision": "maybe", "by": "operator"}, {"decision": "approved"}):
        story = Story()
        place = story.say("approval", {"plan": story.plan().digest(), **body})
        assert failing(verdict_of(story.bundle())) == {"entries": place}
