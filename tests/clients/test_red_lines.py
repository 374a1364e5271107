"""Red lines and legal grounds: what is never done whoever permits it, and what needs customers' consents."""

import dataclasses
import functools
import unicodedata

import pytest

from coterie.clients.consent import Standing, objections
from coterie.clients.deciding import Decision, PlanRefused, decide
from coterie.clients.inbox import look
from coterie.clients.preview import preview_plan
from coterie.privacy.codes import PENDING
from coterie.privacy.compliance import APPROVED, breaches
from coterie.privacy.contract import Interactions
from coterie.privacy.errors import FileFault
from coterie.privacy.policy import Policy, read_policy
from coterie.privacy.release import Refused
from coterie.privacy.schema import parse
from coterie.tests.clients.federation import CONTRACT, study, today

WHY = "special category, GDPR article 9"
ROWS = Interactions(item="product", time="day", value="stars", earliest="2025-01-01", latest="2025-12-31")
BY_REGION = {"by": "region", "names": ["north", "south", "east"]}


def rules(red_lines, **changes):
    """A policy that permits the plans of these tests, but for its red lines."""
    table = {
        "coordinator": "key",
        "customer": "customer",
        "labels": ["bought"],
        "purposes": ["coupons", "credit", "credit.scoring", "Credit.Scoring.Mortgage", "creditors", "fairness.audit"],
        "columns": ["age", "spend", "region", "product", "day", "stars"],
        "families": ["logistic"],
        "trust": ["local"],
        "minimum_partners": 3,
        "minimum_customers": 10,
        "budget": {"study_epsilon": 4.0, "lifetime_epsilon": 24.0, "delta": 1e-5},
        "segments": BY_REGION,
        "red_lines": red_lines,
    }
    return parse(Policy, table | changes, place="policy")


def crossed(red_lines, **plan):
    """Return the places where a plan crosses red lines; nothing else may speak against it."""
    reasons = breaches(study(**plan), rules(red_lines), "amber")
    assert {reason.code for reason in reasons} <= {"red-line"}
    return [reason.fault.place for reason in reasons]


# --- purposes -----------------------------------------------------------------------------------------------

PURPOSES = {
    "the very name": ("credit.scoring", "credit.scoring", True),
    "another case": ("CREDIT.Scoring", "credit.scoring", True),
    "another case in the plan": ("credit.scoring.mortgage", "Credit.Scoring.Mortgage", True),
    "a family": ("credit.*", "credit.scoring", True),
    "a family in another case": ("Credit.*", "Credit.Scoring.Mortgage", True),
    "a family is also its own name": ("credit.*", "credit", True),
    "a family within a family": ("credit.scoring.*", "Credit.Scoring.Mortgage", True),
    "a name that begins alike is no member": ("credit.*", "creditors", False),
    "a name is no family": ("credit", "credit.scoring", False),
    "a smaller family": ("credit.scoring.*", "credit", False),
    "another name": ("credit.scoring", "coupons", False),
}


@pytest.mark.parametrize("case", PURPOSES)
def test_a_purpose_beyond_a_red_line_is_refused_although_it_is_permitted(case):
    line, purpose, refused = PURPOSES[case]
    assert crossed({"purposes": {line: WHY}}, purpose=purpose) == (["plan.purpose"] if refused else [])


@pytest.mark.parametrize(
    "spelled", ["ｒｅｇｉｏｎ", "REGION", " region ", "regi\u00adon".replace("\u00ad", ""), "ℝegion"]
)
def test_a_name_that_only_looks_different_is_the_same_name(spelled):
    assert crossed({"attributes": {spelled: WHY}}) == ["plan.contract.columns.region"]


def test_composed_and_decomposed_letters_are_one_name():
    composed, taken_apart = unicodedata.normalize("NFC", "Café"), unicodedata.normalize("NFD", "cafÉ")
    assert composed.lower() != taken_apart.lower()
    contract = dataclasses.replace(CONTRACT, label=composed)
    found = breaches(study(contract=contract), rules({"attributes": {taken_apart: WHY}}, labels=[composed]), "amber")
    assert [(reason.code, reason.fault.place) for reason in found] == [("red-line", "plan.contract.label")]


# --- columns ------------------------------------------------------------------------------------------------

WITH_ROWS = {"contract": dataclasses.replace(CONTRACT, interactions=ROWS)}
BY_COLUMN = {"cohort__segments": ("north",)}
ROLES = {
    "a feature": ("Age", {}, ["plan.contract.columns.age"]),
    "the label": ("bought", {}, ["plan.contract.label"]),
    "the customer": ("CUSTOMER", {}, ["plan.contract.customer"]),
    "the item": ("product", WITH_ROWS, ["plan.contract.interactions.item"]),
    "the day": ("Day", WITH_ROWS, ["plan.contract.interactions.time"]),
    "the value": ("stars", WITH_ROWS, ["plan.contract.interactions.value"]),
    "the segments' column": ("region", BY_COLUMN, ["plan.contract.columns.region", "plan.cohort.segments"]),
    "none that is used": ("religion", {**WITH_ROWS, **BY_COLUMN}, []),
}


@pytest.mark.parametrize("case", ROLES)
def test_an_attribute_beyond_a_red_line_is_used_in_no_role(case):
    name, plan, places = ROLES[case]
    assert crossed({"attributes": {name: WHY}}, **plan) == places


def test_a_column_that_divides_customers_is_used_only_where_a_plan_asks_for_segments():
    columns = tuple(column for column in CONTRACT.columns if column.name != "region")
    plan = {"contract": dataclasses.replace(CONTRACT, columns=columns)}
    assert crossed({"attributes": {"region": WHY}}, **plan) == []
    assert crossed({"attributes": {"region": WHY}}, **plan, **BY_COLUMN) == ["plan.cohort.segments"]
    hashed = rules({"attributes": {"hash": WHY}}, segments={"by": "hash", "names": ["north"]})
    assert breaches(study(**plan, **BY_COLUMN), hashed, "amber") == []


PROTECTED = {
    "a feature": ("Age", {}, ["plan.contract.columns.age"]),
    "the label": ("bought", {}, ["plan.contract.label"]),
    "the value": ("stars", WITH_ROWS, ["plan.contract.interactions.value"]),
    "segments may be told apart by it": (
        "region",
        {**BY_COLUMN, "contract": CONTRACT},
        ["plan.contract.columns.region"],
    ),
}


@pytest.mark.parametrize("case", PROTECTED)
def test_a_protected_column_is_learned_from_under_an_audit_alone(case):
    name, plan, places = PROTECTED[case]
    lines = {"protected": {name: WHY}, "audits": ["fairness.audit"]}
    assert crossed(lines, **plan) == places
    assert crossed(lines, **plan, purpose="fairness.audit") == []
    assert crossed({"protected": {name: WHY}}, **plan, purpose="fairness.audit") == places


def test_an_audit_lifts_no_other_red_line():
    lines = {"protected": {"age": WHY}, "attributes": {"AGE": WHY}, "audits": ["fairness.audit"]}
    assert crossed(lines, purpose="fairness.audit") == ["plan.contract.columns.age"]
    assert crossed(lines | {"purposes": {"fairness.*": WHY}}, purpose="fairness.audit") == [
        "plan.purpose",
        "plan.contract.columns.age",
    ]
    # An exception is for the purpose as it is spelled, where a line is for every spelling.
    assert crossed({"protected": {"age": WHY}, "audits": ["Coupons"]}) == ["plan.contract.columns.age"]


def test_every_red_line_that_is_crossed_is_told_with_its_reason():
    lines = {"purposes": {"coupons": "never again"}, "attributes": {"age": WHY, "spend": "a secret"}}
    said = [str(reason.fault) for reason in breaches(study(), rules(lines), "amber")]
    assert [line.split(". Fix")[0] for line in said] == [
        "plan.purpose: crosses a red line of the policy: never again",
        f"plan.contract.columns.age: crosses a red line of the policy: {WHY}",
        "plan.contract.columns.spend: crosses a red line of the policy: a secret",
    ]


@pytest.mark.parametrize("key", ["purposes", "attributes", "protected", "audits"])
@pytest.mark.parametrize("name", ["*", ".*", "cre*dit", "credit*", "*.credit", "credit.*.scoring", " "])
def test_a_red_line_that_could_be_misread_is_an_error(federation, key, name):
    lines = {key: [name] if key == "audits" else {name: WHY}}
    federation.policy(red_lines=lines)
    with pytest.raises(FileFault) as refused:
        read_policy(federation.workspace().policy)
    assert [fault.place.split(": ")[-1] for fault in refused.value.faults] == [f"red_lines.{key}"]
    assert federation.propose() == Refused("", ("policy-missing",))


@pytest.mark.parametrize("key", ["attributes", "protected", "audits"])
def test_only_purposes_have_families(federation, key):
    federation.policy(red_lines={key: ["credit.*"] if key == "audits" else {"credit.*": WHY}})
    with pytest.raises(FileFault, match="has a star in a name"):
        read_policy(federation.workspace().policy)


# --- a red line wins ----------------------------------------------------------------------------------------

LINES = {
    "purpose": {"purposes": {"Coupons": WHY}},
    "attribute": {"attributes": {"Region": WHY}},
    "protected": {"protected": {"Age": WHY}, "audits": ["fairness.audit"]},
}


@pytest.mark.parametrize("line", LINES)
def test_a_red_line_wins_over_permission_and_approval_and_opens_nothing(federation, line):
    federation.policy(red_lines=LINES[line], approval={"automatic_epsilon": 4.0})
    assert federation.propose() == Refused(federation.digest, ("red-line",))
    assert WHY in federation.report()
    assert "red-line" not in PENDING
    federation.policy(approval=None, red_lines={})
    assert federation.propose() == Refused(federation.digest, ("awaiting",))
    approve = functools.partial(decide, federation.folders["amber"], federation.digest, Decision(APPROVED), clock=today)
    approve()
    federation.policy(red_lines=LINES[line])
    with pytest.raises(PlanRefused):
        approve()
    assert federation.propose() == Refused(federation.digest, ("red-line",))
    assert not [entry for entry in federation.entries() if entry.kind == "consent"]


@pytest.mark.parametrize("line", LINES)
def test_a_red_line_that_is_drawn_while_a_study_runs_stops_it(agreed, line):
    agreed.train()
    charged = agreed.reservations()
    agreed.policy(red_lines=LINES[line])
    for ask in (agreed.train, agreed.measure):
        with pytest.raises(Exception, match="red line") as refused:
            ask()
        assert refused.value.code == "no-consent"
    assert agreed.reservations() == charged


@pytest.mark.parametrize("line", LINES)
def test_a_preview_and_the_inbox_see_red_lines(federation, line):
    federation.policy(approval=None)
    federation.propose()
    federation.policy(red_lines=LINES[line])
    path = federation.root / "signed.json"
    path.write_bytes(federation.signed.to_bytes())
    said = preview_plan(federation.folders["amber"], path)
    assert said["consents"] is False
    assert [WHY in reason for reason in said["reasons"]] == [True]
    (waiting,) = look(federation.folders["amber"], clock=today)
    assert [WHY in reason for reason in waiting["reasons"]] == [True]


def test_the_coordinator_sees_one_word_and_none_of_the_reason(federation):
    federation.policy(red_lines=LINES["attribute"])
    grid = federation.grid()
    federation.ask_plan(grid)
    assert not any(WHY.encode() in wire for wire in grid.passed)


# --- purposes that rest on consent --------------------------------------------------------------------------


def told(federation, *, consents, **plan):
    """Return the codes of what speaks against a plan, with or without a table of consents."""
    signed = federation.sign(**plan)
    standing = Standing(
        "amber", federation.plan.partners[0].key, today().date(), *[lambda _: True] * 2, lambda: consents
    )
    policy = read_policy(federation.workspace().policy)
    return [reason.code for reason in objections(signed.plan, policy, standing)]


@pytest.mark.parametrize("elsewhere", [{}, {"churn": "contract"}, {"Coupons": "contract"}, {"*": "contract"}])
def test_a_purpose_without_another_legal_ground_needs_a_table_of_consents(federation, elsewhere):
    federation.policy(consent={"elsewhere": elsewhere})
    assert told(federation, consents=False) == ["consent"]
    assert told(federation, consents=True) == []


def test_a_policy_that_says_nothing_of_consent_asks_for_it():
    policy = rules({})
    assert policy.consents("coupons")
    assert not rules({}, consent={"elsewhere": {"coupons": "contract"}}).consents("coupons")


def test_a_purpose_with_another_legal_ground_needs_none(federation):
    federation.policy(consent={"elsewhere": {"coupons": "contract, section 4"}})
    assert told(federation, consents=False) == []


def test_a_purpose_that_is_not_permitted_is_refused_for_that_alone(federation):
    federation.policy(consent={"elsewhere": {}}, purposes=["churn"])
    assert told(federation, consents=False) == ["purpose"]


def test_a_plan_that_wants_consents_waits_for_them_and_then_runs(federation):
    federation.policy(consent={"elsewhere": {}})
    assert federation.propose() == Refused(federation.digest, ("consent",))
    assert "coterie partner consents" in federation.report()
    assert [path.stem for path in (federation.folders["amber"] / "inbox").iterdir()] == [federation.digest[7:]]


def test_a_ground_that_is_taken_away_stops_a_study_that_runs(agreed):
    agreed.train()
    agreed.policy(consent={"elsewhere": {}})
    with pytest.raises(Exception, match="rests on customers' consents") as refused:
        agreed.train(round_=2)
    assert refused.value.code == "no-consent"


def test_an_empty_ground_is_no_ground(federation):
    federation.policy(consent={"elsewhere": {"coupons": ""}})
    with pytest.raises(FileFault, match="text of 1 to 200"):
        read_policy(federation.workspace().policy)
