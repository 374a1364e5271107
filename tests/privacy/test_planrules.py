"""What of a plan that matches customers does not go together: each named with its place, alone, and with a fix."""

import dataclasses
import datetime

import pytest

from coterie.privacy.compliance import breaches
from coterie.privacy.contract import Column, Contract
from coterie.privacy.errors import FileFault
from coterie.privacy.plan import Cohort, Matching, Metrics, Model, Partner, Plan, Privacy, plan_from_dict
from coterie.privacy.planrules import faults_of
from coterie.privacy.policy import read_policy
from coterie.privacy.study import read_study

NAMES = tuple(f"p{number}" for number in range(9))


def match_plan(count=3, **changes):
    plan = Plan(
        name="overlap",
        purpose="coupons",
        task="matching",
        expires=datetime.date(2031, 12, 31),
        contract=Contract(customer="customer"),
        privacy=Privacy(
            unit="customer of one partner", epsilon=1.0, delta=1e-5, trust="local", threshold=count, colluders=1
        ),
        cohort=Cohort(minimum_customers=10),
        partners=tuple(Partner(name=name, customers=100) for name in NAMES[:count]),
        matching=Matching(identifier="email", outcome="counts"),
    )
    for key, value in changes.items():
        part, _, name = key.partition("__")
        inner = dataclasses.replace(getattr(plan, part), **{name: value}) if name else value
        plan = dataclasses.replace(plan, **{part: inner})
    return plan


def places(plan):
    found = faults_of(plan, "x")
    assert all(fault.fix for fault in found)
    return sorted(fault.place.removeprefix("x: ") for fault in found)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_a_match_needs_nothing_but_its_partners_and_what_is_matched(count, outcome):
    plan = match_plan(count, matching__outcome=outcome)
    assert places(plan) == []
    assert plan.matches
    assert plan_from_dict(plan.to_dict()) == plan


BROKEN = {
    "no matching": ({"matching": None}, ["matching"]),
    "fewer than all": ({"privacy__threshold": 2}, ["privacy.threshold"]),
    "a teller from elsewhere": ({"matching__teller": "zebra"}, ["matching.teller"]),
    "a label": ({"contract__label": "bought"}, ["task"]),
    "columns": ({"contract__columns": (Column(name="age", kind="numeric", low=1, high=2),)}, ["task"]),
    "a model": ({"model": Model(family="logistic")}, ["task"]),
    "rounds": ({"training__rounds": 2}, ["task"]),
    "steps": ({"training__local_steps": 2}, ["task"]),
    "metrics": ({"metrics": Metrics(rounds=(1,))}, ["task"]),
    "secure sums": ({"privacy__trust": "secure-aggregation"}, ["task"]),
    "only the shared": ({"cohort__partners": 2}, ["cohort.partners"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_go_with_a_match_is_named(what):
    changes, expected = BROKEN[what]
    assert places(match_plan(**changes)) == expected


def test_a_match_is_of_two_or_more_and_counts_are_of_eight_at_most():
    assert places(match_plan(1, privacy__colluders=0)) == ["privacy.threshold"]
    assert places(match_plan(9)) == ["matching.outcome"]
    assert places(match_plan(9, matching__outcome="rows")) == []


def test_spare_attempts_go_with_a_match():
    assert places(match_plan(training__spare=3)) == []


def test_a_study_that_trains_has_a_model_and_rounds():
    assert "training" in places(match_plan(task="propensity", matching=None))


def test_a_catalogue_has_no_part_in_a_match(plan):
    catalogued = dataclasses.replace(plan, task="matching", matching=Matching(identifier="email", outcome="rows"))
    assert "task" in places(catalogued)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("most", 0),
        ("most", 10_000_001),
        ("least", 1),
        ("least", 1_000_001),
        ("size_class", 0),
        ("epoch", 0),
        ("epoch", 1_000_001),
        ("identifier", "canary-4711"),
        ("outcome", "canary-4711"),
        ("teller", "x" * 61),
    ],
)
def test_a_value_out_of_range_names_its_key_and_never_the_value(key, value):
    table = match_plan().to_dict()
    table["matching"] = {**table["matching"], key: value}
    with pytest.raises(FileFault) as caught:
        plan_from_dict(table)
    assert [fault.place.endswith(f"matching.{key}") for fault in caught.value.faults] == [True]
    assert "4711" not in str(caught.value)


def test_every_value_of_a_match_is_in_the_plans_digest():
    first = match_plan()
    others = [
        match_plan(**{f"matching__{name}": value})
        for name, value in {
            "identifier": "phone",
            "outcome": "rows",
            "most": 999,
            "least": 51,
            "size_class": 512,
            "epoch": 2,
            "teller": "p1",
        }.items()
    ]
    assert len({plan.digest() for plan in (first, *others)}) == 8


def test_a_plan_without_a_match_has_the_digest_that_it_had_before(plan):
    table = plan.to_dict()
    assert "matching" not in table
    assert "partners" not in table["cohort"]


STUDY = """
name = "overlap"
purpose = "coupons"
task = "matching"
expires = 2031-12-31

[contract]
customer = "customer"

[matching]
identifier = "email"
outcome = "counts"

[privacy]
unit = "customer of one partner"
epsilon = 1.0
delta = 1e-5
trust = "local"
threshold = 2
colluders = 1

[cohort]

[[partners]]
name = "books"
customers = 600

[[partners]]
name = "grocer"
customers = 600
"""


def test_a_study_file_of_a_match_says_no_more_than_it_needs(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    read = read_study(path)
    plan = getattr(read, "plan", read)
    assert plan.matches
    assert (plan.training.rounds, plan.metrics.rounds, plan.model.family) == (0, (), "none")
    assert plan.matching == Matching(identifier="email", outcome="counts")


POLICY = """
coordinator = "ed25519:x"
customer = "customer"
labels = []
purposes = ["coupons"]
columns = []
families = []
trust = ["local"]
minimum_partners = 2
minimum_customers = 10

[budget]
study_epsilon = 5.0
lifetime_epsilon = 10.0
delta = 1e-5
year_epsilon = 10.0

[consent.elsewhere]
coupons = "tests"

[peers]
p1 = "k1"
p2 = "k2"

[matching]
outcomes = ["counts"]
identifiers = ["email", "phone"]
evaluations = 1000
least = 50
"""


def rules(tmp_path, text=POLICY):
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return read_policy(path)


def keyed(plan):
    partners = tuple(dataclasses.replace(one, key=f"k{place}") for place, one in enumerate(plan.partners))
    return dataclasses.replace(plan, partners=partners)


def told(plan, policy):
    return [(reason.code, reason.fault.place) for reason in breaches(plan, policy, "p0")]


def test_a_policy_permits_the_matches_that_it_names(tmp_path):
    policy = rules(tmp_path)
    assert told(keyed(match_plan()), policy) == []
    assert told(keyed(match_plan(matching__identifier="phone", matching__least=51)), policy) == []
    refused = {
        "matching__outcome": ("rows", "plan.matching.outcome"),
        "matching__identifier": ("loyalty", "plan.matching.identifier"),
        "matching__least": (49, "plan.matching.least"),
    }
    for key, (value, place) in refused.items():
        assert told(keyed(match_plan(**{key: value})), policy) == [("matching", place)]


def test_without_rules_for_matches_none_is_permitted(tmp_path):
    policy = rules(tmp_path, POLICY[: POLICY.index("[matching]")])
    assert told(keyed(match_plan()), policy) == [("matching", "policy.matching")]


def test_partners_of_a_match_are_pinned(tmp_path):
    policy = rules(tmp_path)
    swapped = dataclasses.replace(keyed(match_plan()).partners[1], key="k9")
    plan = keyed(match_plan())
    plan = dataclasses.replace(plan, partners=(plan.partners[0], swapped, plan.partners[2]))
    assert [code for code, _ in told(plan, policy)] == ["peers"]
    more = keyed(match_plan(4))
    assert [code for code, _ in told(more, policy)] == ["peers"]


def test_a_policy_of_matches_says_what_has_no_default(tmp_path):
    for line in ("outcomes", "identifiers", "evaluations"):
        text = "\n".join(one for one in POLICY.splitlines() if not one.startswith(line))
        with pytest.raises(FileFault, match=f"matching.{line}"):
            rules(tmp_path, text)
    assert rules(tmp_path).matching.disclosures == 0
