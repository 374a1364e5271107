"""Every question of a review, asked of a partner that lies with every signature right: that one fails, at its entry."""

import dataclasses
import datetime
import json
import math
import shutil
import sqlite3
from unittest import mock

import pytest

from coterie.clients.charging import Charging
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import canonical, digest
from coterie.privacy.charges import Charge
from coterie.privacy.checkpoint import cosign, sign_checkpoint
from coterie.privacy.events import DiscreteGaussian, event_to_dict
from coterie.privacy.identity import Identity
from coterie.privacy.plan import Metrics
from coterie.privacy.record import Receipt, StudyRecord, sign_record
from coterie.privacy.renyi import ORDERS, curve
from coterie.privacy.review.bundle import BundleFault
from coterie.privacy.review.cross import cross_check
from coterie.privacy.review.findings import ASKS
from coterie.privacy.review.kept import Keys
from coterie.server.coordinator import run_study
from coterie.server.registry import Registry
from coterie.tests.clients.federation import AT_ONCE, CONTRACT, NAMES, study
from coterie.tests.privacy.review.bundles import (
    NOWHERE,
    Story,
    began,
    exported,
    failing,
    leaf,
    made,
    opened,
    resigned,
    signed_off,
    tree,
    verdict_of,
    wanting,
)

CASES = []


def case(check, says, *, status="fails", **options):
    """Register a history: the function returns its bundle and the entry that is to be named, 0 for the whole."""

    def register(tell):
        CASES.append(pytest.param(tell, check, status, says, options, id=tell.__name__.replace("_", " ")))
        return tell

    return register


def carrying(event, runs):
    """The epsilon, at delta 1e-5, of a budget that carries `runs` charges of an event and half a one."""

    def carried(epsilon):
        rooms = [epsilon - math.log1p(-1 / a) + math.log(1e-5 * a) / (a - 1) for a in ORDERS]
        best = max(range(len(ORDERS)), key=lambda i: rooms[i] / ORDERS[i])
        return rooms[best] / curve([event])[best]

    low, high = 1e-3, 1000.0
    for _ in range(80):
        low, high = (mid, high) if carried(mid := (low + high) / 2) < runs + 0.5 else (low, mid)
    return round(high, 9)


FOUR = {"training__rounds": 4, "metrics": Metrics(rounds=(4,), bins=8)}
UPDATE = calibrate(study(**FOUR)).update
TWO = carrying(UPDATE, 2)  # an epsilon for two of its updates
SEGMENTS = {"by": "hash", "names": ["a", "b"]}


def base(plan_changes=None, **rules):
    """A story with a consent, and its plan."""
    story = Story(**rules)
    plan = story.plan(**(plan_changes or {}))
    story.consent(plan)
    return story, plan


def whole(**rules):
    """A story with a whole study and its model."""
    story, plan = base(**rules)
    story.receive(plan, story.steps(plan))
    return story, plan


# --- budgets --------------------------------------------------------------------------------------------


@case("budgets", "lifetime budget")
def the_lifetime_budget_is_exceeded_by_the_third_charge():
    story, plan = base(FOUR, budget__lifetime_epsilon=TWO)
    places = [story.charge(plan, f"train/{n}") for n in (1, 2, 3, 4)]
    return story, places[2]


@case("budgets", "budget of purpose coupons")
def a_purpose_s_budget_is_exceeded_and_another_purpose_is_not_counted():
    story, calls = base({**FOUR, "purpose": "calls"}, budget__lifetime_epsilon=900, budget__purposes={"coupons": TWO})
    for n in (1, 2, 3):
        story.charge(calls, f"train/{n}")
    coupons = story.plan(**FOUR)
    story.consent(coupons)
    places = [story.charge(coupons, f"train/{n}") for n in (1, 2, 3)]
    return story, places[2]


@case("budgets", "budget of the year 2032")
def a_year_s_budget_is_exceeded_in_the_second_year():
    plans = {**FOUR, "expires": datetime.date(2033, 1, 1)}
    story, plan = base(plans, budget__lifetime_epsilon=900, budget__year_epsilon=TWO)
    story.charge(plan, "train/1")
    story.charge(plan, "train/2")
    second = story.plan(name="again", **plans)
    story.now = datetime.datetime(2032, 1, 1, tzinfo=datetime.UTC)
    story.consent(second)
    story.charge(plan, "train/3")
    story.charge(second, "train/1")
    return story, story.charge(second, "train/2")


@case("budgets", "lifetime budget")
def a_segment_s_budget_is_exceeded_while_another_s_is_not():
    rules = {"segments": SEGMENTS, "budget__lifetime_epsilon": TWO}
    story, first = base({**FOUR, "cohort__segments": ("a",)}, **rules)
    second = story.plan(name="again", **FOUR, cohort__segments=("b",))
    story.consent(second)
    for n in (1, 2):
        story.charge(first, f"train/{n}")
        story.charge(second, f"train/{n}")
    return story, story.charge(second, "train/3")


@case("budgets", "lifetime budget")
def what_all_customers_paid_counts_in_every_segment():
    rules = {"segments": SEGMENTS, "budget__lifetime_epsilon": TWO}
    story, everybody = base(FOUR, **rules)
    some = story.plan(name="again", **FOUR, cohort__segments=("b",))
    story.consent(some)
    story.charge(everybody, "train/1")
    story.charge(some, "train/1")
    return story, story.charge(some, "train/2")


@case("budgets", "lifetime budget")
def the_segments_worst_pays_for_a_charge_to_all():
    rules = {"segments": SEGMENTS, "budget__lifetime_epsilon": TWO}
    story, everybody = base(FOUR, **rules)
    some = story.plan(name="again", **FOUR, cohort__segments=("b",))
    story.consent(some)
    story.charge(some, "train/1")
    story.charge(some, "train/2")
    return story, story.charge(everybody, "train/1")


@case("budgets", "lifetime budget")
def a_budget_that_was_lowered_holds_from_then_on():
    story, plan = base(FOUR)
    story.charge(plan, "train/1")
    story.charge(plan, "train/2")
    story.rule(budget__lifetime_epsilon=TWO)
    return story, story.charge(plan, "train/3")


def late(*, carried):
    """A ledger whose policy is written down after everything was charged."""
    story = Story(budget__lifetime_epsilon=TWO)
    first, rules = story.parts["entry"][:2]
    del story.parts["entry"][: 2 if carried else 1]
    if not carried:
        story.parts["entry"][:] = [first]
    plan = story.plan(**FOUR)
    story.consent(plan)
    for n in (1, 2, 3, 4):
        story.charge(plan, f"train/{n}")
    if carried:
        first["body"]["carried"] = story.size
        story.parts["entry"].append(first)
    story.parts["entry"].append(rules)
    return story.bundle()


@pytest.mark.parametrize("carried", [True, False])
def test_a_policy_that_is_written_down_after_the_charges_hides_no_budget_that_was_exceeded(carried):
    verdict = verdict_of(late(carried=carried))
    assert verdict.status == "fails"
    assert wanting(verdict)["budgets"][0] == "fails"
    if not carried:
        assert wanting(verdict)["budgets"] == ("fails", 3)  # the first charge, when no rules were in force


@pytest.mark.parametrize("tiny", [1e-300, 1e-155, 1e-9])
@pytest.mark.parametrize("kind", ["update", "histogram"])
def test_a_mechanism_that_is_all_but_noiseless_is_never_within_a_budget(tiny, kind):
    story = Story()
    plan = story.plan()
    mechanisms = calibrate(plan)
    update = dataclasses.replace(mechanisms.update, noise_multiplier=tiny)
    changed, step = {"update": (update, "train/1"), "histogram": (DiscreteGaussian(tiny, 1), "evaluate/1")}[kind]
    place = story.consent(plan, **{kind: event_to_dict(changed)})
    for body in story.parts["entry"][place - 1 :]:
        del body["body"][f"{kind}_curve"]
    story.parts["plan"].clear()  # and nobody is to hold it against its plan
    story.charge(plan, step, event=changed)
    assert verdict_of(story.bundle()).status == "fails"


# --- charges --------------------------------------------------------------------------------------------


@case("charges", "without consent")
def a_charge_without_consent():
    story, plan = base()
    other = dataclasses.replace(plan, name="other")
    story.charge(plan)
    return story, story.charge(other)


@case("charges", "without consent")
def a_charge_before_its_consent():
    story = Story()
    plan = story.plan()
    place = story.charge(plan)
    story.consent(plan)
    return story, place


@case("charges", "a second time")
def a_charge_made_twice():
    story, plan = base()
    story.charge(plan)
    return story, story.charge(plan)


@case("charges", "more often than was consented to")
def more_charges_than_declared():
    story, plan = base({"training__spare": 1})
    for step, attempt in (("train/1", 1), ("train/1", 2), ("train/2", 1)):
        story.charge(plan, step, attempt=attempt)
    return story, story.charge(plan, "train/2", attempt=2)


@case("charges", "another event or purpose")
def another_event():
    story, plan = base()
    event = dataclasses.replace(calibrate(plan).update, noise_multiplier=calibrate(plan).update.noise_multiplier * 2)
    return story, story.charge(plan, event=event)


@case("charges", "another event or purpose")
def another_purpose():
    story, plan = base()
    return story, story.charge(plan, purpose="calls")


@case("charges", "another group")
def another_group():
    story, plan = base()
    return story, story.charge(plan, group="holdout")


@case("charges", "another group")
def a_group_that_there_is_not():
    story, plan = base()
    return story, story.charge(plan, group="nobody")


@case("charges", "another group")
def a_step_of_no_kind():
    story, plan = base()
    return story, story.charge(plan, "tests/1", group="training")


@case("charges", "other segments")
def another_segment():
    story, plan = base({"cohort__segments": ("a",)}, segments=SEGMENTS)
    return story, story.charge(plan, segments=("b",))


@case("charges", "a round or an attempt")
def a_round_that_the_plan_does_not_have():
    story, plan = base()
    return story, story.charge(plan, "train/3")


@case("charges", "a round or an attempt")
def a_round_that_is_not_measured():
    story, plan = base({"metrics": Metrics(rounds=(2,), bins=8)})
    return story, story.charge(plan, "evaluate/1")


@case("charges", "a round or an attempt")
def an_attempt_that_the_plan_does_not_have():
    story, plan = base()
    return story, story.charge(plan, attempt=2)


@case("charges", "expired")
def a_charge_on_the_day_after_the_last():
    story, plan = base()
    story.now = datetime.datetime(2031, 12, 31, 23, 59, tzinfo=datetime.UTC)
    story.charge(plan)
    story.now = datetime.datetime(2032, 1, 1, tzinfo=datetime.UTC)
    return story, story.charge(plan, "train/2")


@case("charges", "does not permit any more (purpose)")
def a_charge_that_a_new_policy_does_not_permit():
    story, plan = base()
    story.charge(plan)
    story.rule(purposes=["calls"])
    return story, story.charge(plan, "train/2")


@case("charges", "not open")
def a_charge_that_is_settled_twice():
    story, plan = base()
    place = story.charge(plan)
    return story, story.settle(place)


@case("charges", "not open")
def a_charge_that_was_lost_and_is_settled():
    story, plan = base()
    place = story.reserve(plan)
    story.say("lost", {"reserve": place})
    return story, story.settle(place)


@case("charges", "not open")
def a_settlement_of_no_charge():
    story, _ = base()
    return story, story.settle(2)


# --- consents -------------------------------------------------------------------------------------------

PERMITS = {
    "red-line": ({"red_lines": {"attributes": {"Spend": "not for models"}}}, {}),
    "purpose": ({"purposes": ["calls"]}, {}),
    "customer": ({"customer": "person"}, {}),
    "label": ({"labels": ["sold"]}, {}),
    "column": ({"columns": ["age", "spend"]}, {}),
    "family": ({"families": ["mlp"]}, {}),
    "partners": ({"minimum_partners": 4}, {}),
    "cohort": ({"minimum_customers": 10}, {"cohort__minimum_customers": 11}),
    "delta": ({"budget__delta": 9e-6}, {}),
    "study-budget": ({"budget__study_epsilon": 3.999}, {}),
    "expired": ({}, {"expires": datetime.date(2031, 5, 3)}),
}


def _forbidden(code):
    def tell():
        rules, changes = PERMITS[code]
        story, _ = base(changes, **rules)
        return story, 3

    tell.__name__ = f"a_consent_that_the_policy_did_not_permit_{code}"
    case("consents", f"did not permit the plan ({code})")(tell)


for _code in PERMITS:
    _forbidden(_code)


@case("consents", "did not permit the plan (segment)")
def a_consent_to_segments_that_the_policy_does_not_have():
    story = Story()
    return story, story.consent(story.plan(cohort__segments=("a",)), division=NOWHERE)


@case("consents", "did not permit the plan (special-column)")
def a_consent_to_a_special_column():
    columns = (dataclasses.replace(CONTRACT.columns[0], sensitivity="special"), *CONTRACT.columns[1:])
    story, _ = base({"contract__columns": columns})
    return story, 3


@case("consents", "did not permit the plan (roster)")
def a_consent_to_a_plan_with_another_s_key():
    story = Story()
    plan = study()
    story.consent(plan)
    return story, 3


@case("consents", "another unit of privacy")
def a_consent_with_another_customer_column():
    story, _ = base()
    story.rule(customer="person")
    return story, story.consent(story.plan(name="again", contract__customer="person"))


@case("consents", "divides customers otherwise than an earlier consent")
def a_consent_that_divides_customers_anew():
    story, _ = base({"cohort__segments": ("a",)}, segments=SEGMENTS)
    story.rule(segments={"by": "hash", "names": ["a", "c"]})
    return story, story.consent(story.plan(name="again", cohort__segments=("a",)))


for _field, _value in {
    "name": "autumn",
    "purpose": "calls",
    "contract": NOWHERE,
    "expires": "2032-12-31",
    "customer": "person",
}.items():

    def _told(field=_field, value=_value):
        story = Story()
        return story, story.consent(story.plan(), **{field: value})

    _told.__name__ = f"a_consent_that_tells_another_{_field}_than_the_plan"
    case("consents", "something else of the plan")(_told)


@case("consents", "other segments")
def a_consent_for_all_to_a_plan_for_some():
    story = Story(segments=SEGMENTS)
    plan = story.plan(cohort__segments=("a",))
    return story, story.consent(plan, segments=["a", "b"])


@case("consents", "divides customers otherwise than the policy")
def a_consent_that_divides_otherwise_than_the_policy():
    story = Story(segments=SEGMENTS)
    plan = story.plan(cohort__segments=("a",))
    return story, story.consent(plan, division=NOWHERE)


def _declares(says, **changes):
    def register(tell):
        def told():
            story = Story()
            plan = story.plan()
            fields = {key: value(calibrate(plan)) for key, value in changes.items()}
            story.consent(plan, **fields)
            return story, 3

        told.__name__ = tell
        case("consents", says)(told)

    return register


_declares("another number of updates", updates=lambda m: m.updates + 1)("more_updates_than_rounds")
_declares("another number of histograms", histograms=lambda m: m.histograms + 1)("more_histograms_than_measured_rounds")
for _name, _event in {
    "sample_rate": lambda m: event_to_dict(dataclasses.replace(m.update, sample_rate=0.2)),
    "steps": lambda m: event_to_dict(dataclasses.replace(m.update, steps=1)),
}.items():
    _declares(
        "another sample rate or other steps",
        update=_event,
        update_curve=lambda m, n=_name: list(
            curve([dataclasses.replace(m.update, **{n: 0.2 if n == "sample_rate" else 1})])
        ),
    )(f"another_{_name}_than_the_plan_s")
_declares(
    "other mechanisms",
    update=lambda m: event_to_dict(m.histogram),
    update_curve=lambda m: list(curve([m.histogram])),
)("another_mechanism_than_the_plan_s")


@case("consents", "changes what a study may charge")
def a_second_consent_that_allows_more():
    story, plan = base({"training__spare": 1})
    return story, story.consent(plan, updates=2)


@case("consents", "another policy than the one it names")
def a_policy_entry_whose_digest_lies():
    story = Story()
    place = story.rule(purposes=["coupons"])
    story.parts["entry"][place - 1]["body"]["content"]["purposes"].append("everything")
    return story, place


@case("consents", "breaks its schema")
def a_policy_entry_that_is_no_policy():
    story = Story()
    return story, story.say("policy", {"policy": digest({}), "content": {}})


@case("consents", "another policy than the one in force")
def a_consent_under_a_policy_that_was_replaced():
    story = Story()
    plan, old = story.plan(), story.content
    story.rule(purposes=["coupons"])
    return story, story.consent(plan, policy=digest(old))


@case("consents", "its plan does not verify")
def a_plan_that_another_coordinator_signed():
    story = Story()
    plan, story.coordinator, mine = story.plan(), Identity.create(), story.coordinator
    story.consent(plan)
    story.coordinator = mine
    return story, 3


@case("consents", "its plan is not in the bundle", status="open")
def a_missing_plan():
    story, _ = base()
    story.parts["plan"].clear()
    return story, 3


@case("consents", "its policy is not in the ledger", status="open")
def a_carried_consent_whose_policy_was_never_written_down():
    story, _ = base()
    first, _, consent = story.parts["entry"]
    first["body"]["carried"] = 1
    story.parts["entry"][:] = [consent, first]
    shown = story.opened()
    shown.parts["checkpoint"] = []
    return resigned(shown, story.partner), 1


# --- other entries --------------------------------------------------------------------------------------


@case("kinds", "does not know", status="open")
def an_entry_of_an_unknown_kind():
    story, _ = base()
    return story, story.say("tomorrow", {"x": 1})


@case("entries", "another partner's")
def a_ledger_that_names_another_owner():
    story, _ = base()
    story.parts["entry"][0]["body"]["key"] = Identity.create().public
    return story, 1


@case("entries", "another partner's")
def a_ledger_that_names_its_owner_otherwise():
    story = Story()
    story.parts["entry"][0]["body"]["partner"] = "birch"
    return story, 1


@case("entries", "opens a ledger that was open")
def a_ledger_that_is_opened_twice():
    story, _ = base()
    return story, story.say("opened", {**story.parts["entry"][0]["body"], "carried": 3})


@case("entries", "opens a ledger that was open")
def a_ledger_that_says_that_more_was_carried_over():
    story, _ = base()
    story.parts["entry"][0]["body"]["carried"] = 1
    return story, 1


@case("entries", "stands before the entry that says whose ledger it is")
def a_ledger_that_says_not_whose_it_is():
    story = Story()
    del story.parts["entry"][0]
    return story, 1


@case("entries", "unknown fields")
def an_entry_that_says_more_than_its_kind_does():
    story, plan = base()
    return story, story.say("lost", {"reserve": story.reserve(plan), "customer": "amber-00001"})


@case("entries", "lacks fields")
def an_entry_that_says_less_than_its_kind_does():
    story = Story()
    return story, story.say("refusal", {"release": "", "plan": ""})


@case("entries", "out of range")
def an_entry_with_a_text_for_a_number():
    story = Story()
    return story, story.say("lost", {"reserve": "1"})


@case("time", "before the one of the entry before")
def time_that_goes_back():
    story, plan = base()
    story.now -= datetime.timedelta(seconds=1)
    return story, story.reserve(plan)


@case("entries", "no time in UTC")
def an_entry_without_a_time():
    story = Story()
    return story, story.say("refusal", {"release": "", "plan": "", "codes": []}, at="yesterday+00:00")


@case("entries", "no time in UTC")
def an_entry_with_a_time_of_elsewhere():
    story = Story()
    at = "2031-05-04T12:00:00+01:00"
    return story, story.say("refusal", {"release": "", "plan": "", "codes": []}, at=at)


@pytest.mark.parametrize(
    "at",
    [
        "2031-05-04 23:00:00.000000+00:00",  # sorts before every time that is written with a T
        "20310504T120000.000000+00:00",
        "2031-W18-7T12:00:00.000000+00:00",
        "2031-05-04\x1b12:00:00.000000+00:00",
        "0001-01-01T00:00:00.000000+00:00",
        "9999-12-31T23:59:59.999999+00:00",
        "9999-12-31T24:00:00+00:00",
        "0001-01-01T00:00:00+14:00",
        "-001-01-01T00:00:00+00:00",
    ],
)
@pytest.mark.parametrize("kind", ["consent", "reserve", "refusal"])
def test_a_time_in_another_spelling_is_refused_and_never_hides_that_time_went_back(at, kind):
    story, plan = base()
    bodies = {
        "consent": story.parts["entry"][2]["body"],
        "reserve": {**story.parts["entry"][story.reserve(plan) - 1]["body"], "step": "train/2"},
        "refusal": {"release": "", "plan": "", "codes": []},
    }
    story.say(kind, bodies[kind], at=at)
    story.say("refusal", bodies["refusal"])
    assert verdict_of(story.bundle()).status == "fails"


@case("randomness", "secret randomness")
def noise_that_can_be_drawn_again():
    story, plan = base()
    return story, story.charge(plan, random="seeded")


# --- form, signature, tree ------------------------------------------------------------------------------


@case("form", "cut off")
def a_bundle_that_is_cut_off():
    story, plan = base()
    story.cosign()
    story.steps(plan)
    lines = story.bundle().splitlines(keepends=True)
    return b"".join(lines[:8]) + lines[8][:100], 6


@case("form", "out of place")
def entries_that_are_swapped():
    story, _ = base()
    shown = opened(story.bundle())
    shown.parts["checkpoint"].clear()
    lines = resigned(shown, story.partner).splitlines()
    lines[-2], lines[-3] = lines[-3], lines[-2]
    return b"\n".join(lines) + b"\n", 2


@case("signature", "did not sign")
def a_bundle_that_another_key_signed():
    story, _ = whole()
    lines = story.bundle().splitlines()
    head = json.loads(lines[-1])["head"]
    return signed_off(lines[:-1], head, Identity.create()), 0


@case("signature", "did not sign")
def a_bundle_that_was_changed_outside_its_entries():
    story, _ = whole()
    return story.bundle().replace(b'"software":"none"', b'"software":"some"'), 0


@case("signature", "did not sign")
def a_signature_that_is_none():
    story, _ = base()
    lines = story.bundle().splitlines()
    end = {**json.loads(lines[-1]), "signature": "0x" + "0" * 126}
    return b"\n".join([*lines[:-1], canonical(end)]) + b"\n", 0


@case("tree", "does not hash to the leaf")
def a_leaf_that_is_not_its_entry_s():
    story, plan = base()
    story.charge(plan)
    lines = story.bundle().splitlines()
    head, at = json.loads(lines[-1])["head"], -3
    lines[at] = lines[at][:-66] + b"0" * 64 + lines[at][-2:]
    return signed_off(lines[:-1], head, story.partner), 4


@case("tree", "do not lead to the signed root")
def a_head_over_other_entries():
    story, _ = base()
    lines = story.bundle().splitlines()
    return signed_off(lines[:-1], sign_checkpoint(3, bytes(32), story.partner), story.partner), 0


@case("tree", "do not lead to the signed root")
def a_head_over_fewer_entries():
    story, _ = base()
    lines = story.bundle().splitlines()
    leaves = [leaf(line[len(b'{"entry":') : -len(b',"leaf":"') - 66]) for line in lines[3:-1]]
    assert len(leaves) == 3
    return signed_off(lines[:-1], sign_checkpoint(2, tree(leaves[:2]), story.partner), story.partner), 0


@case("tree", "another partner's")
def a_head_of_another_ledger():
    story, other = base()[0], Story()
    lines = story.bundle().splitlines()
    return signed_off(lines[:-1], json.loads(other.bundle().splitlines()[-1])["head"], story.partner), 0


# --- checkpoints ----------------------------------------------------------------------------------------


def since(change):
    """The bundle of a history that was changed after the coordinator had cosigned it."""
    story, plan = base()
    place = story.charge(plan)
    story.charge(plan, "train/2")
    shown = opened(story.bundle())
    change(shown, place)
    return resigned(shown, story.partner)


@case("checkpoints", "some were removed")
def an_entry_that_was_removed_since_a_cosigned_checkpoint():
    return since(lambda shown, place: shown.remove(shown.at("settle", 1))), 0


@case("checkpoints", "was rewritten")
def an_entry_that_was_rewritten_before_a_cosigned_checkpoint():
    def change(shown, place):
        shown.entries[place]["body"]["release"] = NOWHERE

    return since(change), 7


@case("checkpoints", "was rewritten")
def entries_that_were_exchanged_for_others():
    def change(shown, place):
        shown.remove(place + 1)
        shown.insert(place + 1, "refusal", {"release": "", "plan": "", "codes": []})

    return since(change), 7


@case("checkpoints", "another partner's ledger")
def a_checkpoint_of_another_partner():
    story, other = base()[0], Story()
    shown = opened(story.bundle())
    shown.parts["checkpoint"] += opened(other.bundle()).parts["checkpoint"]
    return resigned(shown, story.partner), 0


@case("checkpoints", "not cosigned")
def a_checkpoint_that_nobody_cosigned():
    story, _ = base()
    shown = opened(story.bundle())
    shown.parts["checkpoint"].append(json.loads(story.bundle().splitlines()[-1])["head"])
    return resigned(shown, story.partner), 0


@case("checkpoints", "was not named")
def a_checkpoint_that_a_stranger_cosigned():
    story, _ = base()
    shown = opened(story.bundle())
    note = json.loads(story.bundle().splitlines()[-1])["head"]
    shown.parts["checkpoint"] = [cosign(note, Identity.create(), 7)]
    return resigned(shown, story.partner), 0


@case("checkpoints", "cosigned by nobody", status="open")
def a_ledger_that_nobody_ever_cosigned():
    story, plan = base()
    story.charge(plan)
    shown = story.opened()
    shown.parts["checkpoint"] = []
    return resigned(shown, story.partner), 5


def _earlier(name, says, tell, entry):
    def told():
        story, plan = base()
        story.charge(plan)
        notes, changed = tell(story, plan)
        shown = story.opened()
        shown.parts["checkpoint"] = ["\n3\n"]
        if changed:
            changed(shown)
        return resigned(shown, story.partner, story.coordinator), entry, {"earlier": notes}

    told.__name__ = name
    case("earlier", says)(told)


def _head(story):
    return json.loads(story.bundle().splitlines()[-1])["head"]


_earlier(
    "an_earlier_bundle_with_more_entries",
    "some were removed",
    lambda s, p: ((_head(s),), lambda shown: shown.remove(5)),
    0,
)
_earlier(
    "an_earlier_bundle_with_another_history",
    "was rewritten",
    lambda s, p: ((_head(s),), lambda shown: shown.entries[4]["body"].update(release=NOWHERE)),
    5,
)
_earlier("an_earlier_bundle_of_another_partner", "another partner's", lambda s, p: ((_head(Story()),), None), 0)
_earlier("an_earlier_checkpoint_that_is_none", "is not a checkpoint", lambda s, p: (("no note",), None), 0)


# --- what the coordinator says --------------------------------------------------------------------------


@case("receipts", "is not in the bundle", status="open", accounting=False)
def a_record_that_is_withheld():
    story, _ = whole()
    story.parts["record"].clear()
    return story, story.size


@case("receipts", "names another record or model")
def a_record_that_is_not_the_one_in_the_ledger():
    story, plan = whole()
    (told,) = story.parts["record"]
    other = StudyRecord(plan.digest(), told["record"]["model"], {"auc": 0.9}, ())
    story.parts["record"] = [json.loads(sign_record(other, story.coordinator))]
    return story, story.size


@case("receipts", "names another record or model")
def a_model_that_is_not_the_record_s():
    story, _ = whole()
    story.parts["entry"][-1]["body"]["model"] = NOWHERE
    return story, story.size


@case("receipts", "the study's record")
def a_record_that_was_altered():
    story, _ = whole()
    story.parts["record"][0]["record"]["metrics"]["auc"] = 0.9
    return story, story.size


@case("receipts", "no charge paid for")
def a_receipt_without_a_charge():
    story, plan = base()
    places = story.steps(plan)
    story.receive(plan, places, (Receipt("amber", "train/2", 2, NOWHERE),))
    return story, story.size


@case("receipts", "no charge paid for")
def a_receipt_of_a_charge_that_was_lost():
    story, plan = base()
    place = story.reserve(plan)
    story.say("lost", {"reserve": place})
    story.receive(plan, [place])
    return story, story.size


@case("receipts", "no charge paid for")
def a_release_that_another_charge_paid_for():
    story, plan = base()
    place, _ = story.charge(plan), story.charge(plan, "train/2")
    release = digest({"release": place})
    story.receive(plan, [place], (Receipt("amber", "train/2", 1, release),))
    return story, story.size


@case("receipts", "without consent")
def the_model_of_a_study_without_consent():
    story, _ = base()
    other = story.plan(name="other")
    story.receive(other, [])
    return story, story.size


@case("cards", "something else", accounting=True)
def a_card_that_claims_less_than_the_study_spent():
    story, _ = whole()
    story.parts["card"][0]["guarantee"]["epsilon"] *= 0.99
    return story, story.size


@case("cards", "something else", accounting=True)
def a_card_that_claims_a_better_model():
    story, _ = whole()
    story.parts["card"][0]["metrics"]["auc"] = 0.99
    return story, story.size


@case("cards", "not in the bundle", status="open", accounting=True)
def a_card_that_is_withheld():
    story, _ = whole()
    story.parts["card"].clear()
    return story, story.size


@case("cards", "could be checked", status="open", accounting=True)
def a_card_of_a_study_that_is_not_there():
    story, _ = whole()
    story.parts["card"].append({**story.parts["card"][0], "plan": NOWHERE})
    return story, 0


# --- accountants ----------------------------------------------------------------------------------------


@case("accountants", "another Rényi curve")
def a_consent_with_a_curve_that_is_too_low():
    story = Story()
    plan = story.plan()
    told = [value * 0.99 for value in curve([calibrate(plan).update])]
    return story, story.consent(plan, update_curve=told)


def _too_little_noise(kind, group):
    def tell():
        story = Story(budget__lifetime_epsilon=900)
        plan = story.plan()
        event = getattr(calibrate(plan), kind)
        name = "noise_multiplier" if kind == "update" else "sigma"
        weak = dataclasses.replace(event, **{name: getattr(event, name) * 0.98})
        story.consent(plan, **{kind: event_to_dict(weak), f"{kind}_curve": list(curve([weak]))})
        return story, 3

    tell.__name__ = f"less_noise_than_the_plan_s_epsilon_asks_for_on_group_{group}"
    case("accountants", f"other noise for group {group}", accounting=True)(tell)


_too_little_noise("update", "training")
_too_little_noise("histogram", "holdout")


# --- keys -----------------------------------------------------------------------------------------------


@case("keys", "the partner's key")
def a_partner_whose_key_was_not_compared():
    story, _ = base()
    return story, 0, {"keys": Keys(frozenset({story.coordinator.public}))}


@case("keys", "names a coordinator")
def a_coordinator_whose_key_was_not_compared():
    story, _ = base()
    return story, 2, {"keys": Keys(coordinators=frozenset({story.partner.public}))}


@case("keys", "names a coordinator")
def a_coordinator_of_its_own_for_a_while():
    story, mine = Story(), Identity.create()
    place = story.rule(coordinator=mine.public)
    story.rule()
    return story, place, {"keys": Keys(frozenset({story.partner.public}), frozenset({story.coordinator.public}))}


# --- the table ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tell", "check", "status", "says", "options"), CASES)
def test_a_lie_with_every_signature_right_fails_at_its_entry_and_nowhere_else(tell, check, status, says, options):
    told, entry, *more = tell()
    bundle = told if isinstance(told, bytes) else told.bundle()
    verdict = verdict_of(bundle, **options, **(more[0] if more else {}))
    assert failing(verdict) == ({check: entry} if status == "fails" else {})
    assert wanting(verdict)[check] == (status, entry)
    assert wanting(verdict).keys() <= {check, "receipts", "checkpoints"}
    (found,) = [c for c in verdict.checks if c.name == check]
    assert says in found.findings[0].says
    assert verdict.status == status
    if status == "fails":
        assert verdict.line.startswith(f"FAILED ({check}): ")
    else:
        assert verdict.line.startswith("CANNOT BE DECIDED")


def test_every_question_has_a_history_in_which_it_alone_fails():
    assert {param.values[1] for param in CASES if param.values[2] == "fails"} == set(ASKS) - {
        *("kinds", "bundles"),
        "openings",  # those are in `test_sums.py`
        "vault",  # and those in `test_sealings.py`
        "matching",  # and those in `test_matches.py`
    }
    assert {"kinds", "consents", "checkpoints", "receipts", "cards"} == {
        param.values[1] for param in CASES if param.values[2] == "open"
    }


# --- several bundles ------------------------------------------------------------------------------------


def test_the_bundles_of_all_partners_tell_of_one_study():
    assert cross_check([verdict_of(made().bundles[name]) for name in NAMES]).status == "holds"


def test_two_bundles_of_one_partner_are_not_two_partners():
    check = cross_check([verdict_of(made().bundle)] * 2)
    assert check.status == "fails"
    assert "of one partner" in check.findings[0].says


def test_a_partner_whose_bundle_is_missing_is_named_as_missing():
    check = cross_check([verdict_of(made().bundles[name]) for name in NAMES[:2]])
    assert check.status == "open"
    assert "1 of 3 partners gave no bundle" in check.findings[0].says


def another_record(metric):
    """Birch's bundle, to whom the coordinator told another story."""
    known = made()
    shown = opened(known.bundles["birch"])
    fields = shown.parts["record"][0]["record"]
    receipts = tuple(Receipt(**receipt) for receipt in fields["receipts"])
    record = StudyRecord(fields["plan"], fields["model"], {**fields["metrics"], "auc": metric}, receipts)
    shown.parts["record"] = [json.loads(sign_record(record, known.coordinator))]
    shown.of("model")[0]["body"]["record"] = record.digest()
    return resigned(shown, known.partners["birch"], known.coordinator)


def test_a_coordinator_that_tells_two_stories_is_seen_where_they_meet():
    told = [verdict_of(made().bundle), verdict_of(another_record(0.99))]
    assert [wanting(verdict) for verdict in told] == [{}, {}]
    check = cross_check([*told, verdict_of(made().bundles["cedar"])])
    assert check.status == "fails"
    assert "bundles 1, 2, 3 hold different records" in check.findings[0].says


def test_a_partner_under_another_key_than_in_the_others_plans_is_seen():
    story, _ = whole()
    check = cross_check([verdict_of(made().bundles["birch"]), verdict_of(story.bundle())])
    assert check.status == "fails"
    assert any("bundle 2 is signed by another key" in finding.says for finding in check.findings)


def test_a_study_that_one_ledger_knows_nothing_of_is_named():
    known = made()
    shown = opened(known.bundles["birch"])
    shown.parts = {**shown.parts, "plan": [], "record": [], "card": [], "entry": shown.entries[:3]}
    quiet = verdict_of(resigned(shown, known.partners["birch"], known.coordinator))
    assert wanting(quiet) == {}
    check = cross_check([verdict_of(known.bundle), quiet, verdict_of(known.bundles["cedar"])])
    assert check.status == "fails"
    assert "bundle 1 shows 4 releases of bundle 2's partner that that ledger lacks" in check.findings[0].says


def test_a_study_that_was_consented_to_and_is_not_in_another_s_ledger_is_open():
    story, other = Story(), Story()
    plan, other.coordinator = story.plan(), story.coordinator
    roster = tuple(dataclasses.replace(p, key=k) for p, k in zip(plan.partners, keys_of(story, other), strict=True))
    story.consent(dataclasses.replace(plan, partners=roster))
    shown = other.opened()
    shown.header["partner"] = shown.entries[0]["body"]["partner"] = "birch"
    check = cross_check([verdict_of(story.bundle()), verdict_of(resigned(shown, other.partner, other.coordinator))])
    assert check.status == "open"
    assert any("1 of 3 partners have a ledger that knows nothing of it" in found.says for found in check.findings)


def keys_of(*stories):
    """Public keys for a roster of three."""
    return [*(story.partner.public for story in stories), Identity.create().public]


# --- the honest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_of_a_federation_that_ran_holds_with_both_accountants(name):
    verdict = verdict_of(made().bundles[name], accounting=True)
    assert wanting(verdict) == {}
    assert {check.name for check in verdict.checks} == set(ASKS) - {
        "earlier",
        "keys",
        "bundles",
        "openings",
        "matching",
    }
    assert verdict.line.startswith("VERIFIED: 13 entries, 1 studies")
    (told,) = verdict.studies
    assert (told.settled, told.lost, told.unsettled) == (4, 0, 0)
    assert [(g.charges, g.declared) for g in told.groups] == [(2, 2), (2, 2)]


def test_the_same_bundle_signed_anew_by_its_owner_is_the_same_bytes():
    known = made()
    assert resigned(opened(known.bundle), known.partner) == known.bundle
    assert resigned(opened(known.bundle), known.partner, known.coordinator) == known.bundle


def test_a_bundle_holds_against_every_earlier_checkpoint_of_it_and_the_right_keys():
    known = made()
    notes = tuple(opened(known.bundle).parts["checkpoint"])
    keys = Keys(frozenset({known.partner.public}), frozenset({known.coordinator.public}))
    verdict = verdict_of(known.bundle, earlier=notes, keys=keys)
    assert wanting(verdict) == {}
    assert {"earlier", "keys"} <= {check.name for check in verdict.checks}


def test_a_story_told_right_holds_up_to_its_last_charge():
    plans = {**FOUR, "expires": datetime.date(2031, 5, 4)}
    story, plan = base(plans, budget__lifetime_epsilon=TWO, budget__year_epsilon=TWO, budget__purposes={"coupons": TWO})
    story.charge(plan, "train/1")
    story.charge(plan, "train/2")
    assert wanting(verdict_of(story.bundle(), accounting=True)).keys() <= {"receipts"}


def test_segments_pay_each_for_itself():
    story, first = base({**FOUR, "cohort__segments": ("a",)}, segments=SEGMENTS, budget__lifetime_epsilon=TWO)
    second = story.plan(name="again", **FOUR, cohort__segments=("b",))
    story.consent(second)
    for plan in (first, second):
        story.charge(plan, "train/1")
        story.charge(plan, "train/2")
    assert wanting(verdict_of(story.bundle(), accounting=True)).keys() <= {"receipts"}


def test_a_segment_whose_budget_is_spent_does_not_stop_another():
    story, first = base({**FOUR, "cohort__segments": ("a",)}, segments=SEGMENTS, budget__lifetime_epsilon=TWO)
    second = story.plan(name="again", **FOUR, cohort__segments=("b",))
    story.consent(second)
    places = [story.charge(first, f"train/{n}") for n in (1, 2, 3)]
    story.charge(second, "train/1")
    (check,) = [c for c in verdict_of(story.bundle()).checks if c.name == "budgets"]
    assert [found.entry for found in check.findings] == places[2:]


def stumbling(times):
    """Let the first `times` settlements of a process fail, as a full disk would."""
    settle, left = Charging.settle, [times]

    def failing(self, reservation, release):
        if left[0] > 0:
            left[0] -= 1
            raise OSError(28, "No space left on device")
        settle(self, reservation, release)

    return mock.patch.object(Charging, "settle", failing)


def test_a_bundle_holds_after_an_attempt_that_a_crash_left_lost():
    federation = began(study(training__spare=1))
    federation.propose()
    with stumbling(1), pytest.raises(OSError, match="No space"):
        federation.train()
    federation.run()
    verdict = verdict_of(exported(federation), accounting=True)
    assert wanting(verdict) == {}
    assert verdict.studies[0].lost == 1
    assert verdict.studies[0].settled >= 2


def test_a_bundle_holds_with_a_charge_that_is_still_open():
    federation = began()
    federation.run()
    federation.signed = federation.sign(name="autumn")
    federation.plan, federation.digest = federation.signed.plan, federation.signed.plan.digest()
    federation.propose()
    with stumbling(1), pytest.raises(OSError, match="No space"):
        federation.train()
    verdict = verdict_of(exported(federation), accounting=True)
    assert wanting(verdict) == {}
    assert [told.unsettled for told in verdict.studies] == [0, 1]
    assert verdict.studies[1].groups[0].charges == 1


def test_a_bundle_holds_after_the_policy_was_changed_between_two_studies():
    federation = began()
    federation.run()
    federation.policy(budget__year_epsilon=20.0)
    federation.signed = federation.sign(name="autumn")
    places = Registry(federation.root / "coordinator" / "autumn"), federation.witness()
    run_study(federation.grid(), federation.signed, places, patience=AT_ONCE, show=lambda _: None, stop=bool)
    verdict = verdict_of(exported(federation), accounting=True)
    assert wanting(verdict) == {}
    assert len(verdict.studies) == 2
    assert [rules.content["budget"].get("year_epsilon") for rules in verdict.rules] == [None, 20.0]
    assert {budget.span for budget in verdict.budgets} == {"life", "year/2031"}


# The file of version 1 as it was made then.
FIRST = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY CHECK (seq > 0), at TEXT NOT NULL, kind TEXT NOT NULL CHECK "
    "(kind IN ('consent', 'refusal', 'reserve', 'settle', 'lost')), key TEXT UNIQUE, body TEXT NOT NULL) STRICT",
    "CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE TRIGGER entries_are_never_removed BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "PRAGMA user_version = 1",
)


def put_back(path, entries):
    """Write the entries about studies as version 1 kept them, in the ledger's place."""
    kept = [entry for entry in entries if entry.kind not in {"opened", "policy", "model", "vault"}]
    places = {entry.seq: number for number, entry in enumerate(kept, start=1)}
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    db = sqlite3.connect(path)
    for statement in FIRST:
        db.execute(statement)
    for entry in kept:
        body, key = dict(entry.body), None
        if entry.kind == "reserve":
            key = f"{body['plan']}/{body['step']}/{body['attempt']}"
            del body["rows"]
        elif entry.kind in {"settle", "lost"}:
            body["reserve"] = places[body["reserve"]]
            key = f"settle/{body['reserve']}"
        row = (places[entry.seq], entry.at.replace("+00:00", ".000000+00:00"), entry.kind, key, json.dumps(body))
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()


def test_a_bundle_holds_after_a_ledger_of_version_1_was_carried_over():
    federation = began()
    federation.propose()
    federation.train()
    workspace = federation.workspace()
    rows = federation.rows()
    put_back(workspace.ledger, federation.everything())
    federation.put(rows)
    federation.run()
    verdict = verdict_of(exported(federation), accounting=True)
    assert wanting(verdict) == {"vault": ("open", 2)}  # version 1 had no vault: that charge was made of an open table
    assert verdict.studies[0].settled == 4
    carried = opened(exported(federation))
    assert carried.entries[0]["kind"] == "consent"
    assert carried.of("opened")[0]["body"]["carried"] == 3


def test_what_a_charge_of_before_the_carrying_over_cost_still_counts():
    federation = began()
    federation.propose()
    federation.train()
    put_back(federation.workspace().ledger, federation.everything())
    shown = opened(exported(federation))
    again = shown.of("reserve")[0]["body"]
    shown.insert(len(shown.entries) + 1, "reserve", again)
    verdict = verdict_of(resigned(shown, federation.workspace().identity))
    assert failing(verdict) == {"charges": len(shown.entries)}


def test_a_file_that_is_no_bundle_is_a_fault_and_not_a_verdict(tmp_path):
    for content in (b"", b"{}\n", b"\x00" * 100, b"[]\n", made().bundle[:50]):
        with pytest.raises(BundleFault) as caught:
            verdict_of(content)
        assert caught.value.faults[0].fix
    shutil.rmtree(tmp_path)


def test_more_findings_than_are_shown_are_counted():
    story, plan = base()
    for _ in range(30):
        story.reserve(dataclasses.replace(plan, name="other"))
    (check,) = [c for c in verdict_of(story.bundle()).checks if c.name == "charges"]
    assert (len(check.findings), check.more) == (20, 10)


def test_a_charge_is_what_the_ledger_s_own_code_writes():
    story, plan = base()
    body = story.parts["entry"][story.reserve(plan) - 1]["body"]
    assert Charge(**{**body, "event": calibrate(plan).update}).key == f"{plan.digest()}/train/1/1"
