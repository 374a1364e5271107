"""Who asks which models were made with a customer gets the answer that a hand count over the ledger gives."""

import dataclasses
import hashlib
import hmac
import json
import sqlite3
from pathlib import Path

import pytest

from coterie.clients.erasing import trace_customer
from coterie.clients.tracing import CERTAIN, POSSIBLE, Trace
from coterie.clients.vault import CUSTOMERS, IDENTIFIERS, INTERACTIONS
from coterie.privacy.accountant import guarantee
from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.charges import Charge, Limit
from coterie.privacy.errors import FileFault
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.renyi import Filter
from coterie.privacy.study import read_study
from coterie.tests.clients.federation import study
from coterie.tests.clients.recommending import recommends
from coterie.tests.stories.vaultkit import (
    GROUP_KEY,
    all_tables,
    name_of,
    opened,
    put,
    small_vault,
    tables,
    tree,
    without,
)

AMPLE = [Limit(Filter(10_000.0, 1e-5))]
EVENT = DiscreteGaussian(4.0, 1)
OTHER = DiscreteGaussian(9.0, 1)
SEGMENTED = '[segments]\nby = "hash"\nnames = ["a", "b", "c"]\n'
STUDIES = Path(__file__).parents[2] / "simulations" / "studies"


def keyed(label, customer):
    """HMAC-SHA256 under the key of groups, written down a second time."""
    return int.from_bytes(hmac.new(GROUP_KEY, label + customer.encode(), hashlib.sha256).digest()[:8], "big")


def held_out(customer):
    return keyed(b"coterie/group/v1\n", customer) % 5 == 0


def segment(customer):
    return "abc"[keyed(b"coterie/segment/v1\n", customer) % 3]


EVERYBODY = [name_of(number) for number in range(40)]
TRAINED = next(name for name in EVERYBODY if not held_out(name) and segment(name) == "a")
MEASURED = next(name for name in EVERYBODY if held_out(name) and segment(name) == "a")


@pytest.fixture
def bank(tmp_path):
    return small_vault(tmp_path / "bank")


def consent(vault, plan):
    """Consent to a plan, as the ledger and the folder of plans have it."""
    vault.workspace.plan(plan.digest()).write_text(json.dumps({"plan": plan.to_dict()}))
    some = "sha256:" + "0" * 64
    shape = {
        "plan": plan.digest(),
        "release": some,
        "contract": plan.contract.digest(),
        "policy": some,
    }
    text = json.dumps(shape)
    # The entry's other fields say nothing to a trace; its whole shape is the business of other tests.
    vault.ledger._append("consent", json.loads(text), key=None)


def charge(vault, plan, step, *, group=TRAINING, attempt=1, event=EVENT, random="os", segments=()):
    told = Charge(plan.digest(), plan.purpose, step, attempt, group, event, random, segments)
    return vault.ledger.reserve(told, AMPLE, declared=1000)


def counted(bank, customer):
    """The releases of each plan that the ledger's own file charges to a customer's group and segment."""
    group, mine, found = "holdout" if held_out(customer) else "training", segment(customer), {}
    divided = "[segments]" in bank.policy.read_text()
    with sqlite3.connect(bank.ledger) as db:
        for (text,) in db.execute("SELECT body FROM entries WHERE kind = 'reserve' ORDER BY seq"):
            body = json.loads(text)
            chosen = body.get("segments") or []
            if body["group"] == group and (not chosen or not divided or mine in chosen):
                found[body["plan"]] = found.get(body["plan"], 0) + 1
    return found


def told(bank, customer):
    with opened(bank) as vault:
        return trace_customer(vault, customer)


def by_plan(found):
    return {study.plan: study.releases for study in found.studies}


@pytest.fixture
def history(bank):
    """Several studies: rounds of training and measuring, a lost attempt, and one that was never charged."""
    plans = [study(name=name, purpose=purpose) for name, purpose in (("spring", "coupons"), ("summer", "news"))]
    silent = study(name="silent")
    with opened(bank) as vault:
        for plan in (*plans, silent):
            consent(vault, plan)
        for number in range(1, 4):
            vault.ledger.settle(charge(vault, plans[0], f"train/{number}"), "sha256:" + "1" * 64)
            vault.ledger.settle(charge(vault, plans[0], f"evaluate/{number}", group=HOLDOUT), "sha256:" + "2" * 64)
        charge(vault, plans[1], "train/1", event=OTHER)  # lost
        vault.ledger.recover()
        vault.ledger.settle(charge(vault, plans[1], "train/1", attempt=2, event=OTHER), "sha256:" + "3" * 64)
    return plans


def test_a_training_customer_is_told_the_training_charges_lost_ones_with_them(bank, history):
    spring, summer = history
    found = told(bank, TRAINED)
    assert found.group == "training"
    assert by_plan(found) == counted(bank, TRAINED) == {spring.digest(): 3, summer.digest(): 2}
    assert [(s.name, s.purpose, s.role) for s in found.studies] == [
        ("spring", "coupons", "trained"),
        ("summer", "news", "trained"),
    ]
    assert found.studies[0].spent == str(guarantee([EVENT] * 3, spring.privacy.delta, trust="local"))
    assert found.studies[1].spent == str(guarantee([OTHER] * 2, summer.privacy.delta, trust="local"))


def test_a_held_out_customer_is_told_the_measurements_alone(bank, history):
    found = told(bank, MEASURED)
    assert found.group == "holdout"
    assert by_plan(found) == counted(bank, MEASURED) == {history[0].digest(): 3}
    assert found.studies[0].role == "measured"


def test_everybody_is_told_what_a_hand_count_finds(bank, history):
    groups = set()
    for customer in [*EVERYBODY, "somebody else", "é", ""]:
        found = told(bank, customer)
        assert by_plan(found) == counted(bank, customer)
        groups.add(found.group)
    assert groups == {"training", "holdout"}


def test_a_customer_of_another_segment_is_not_told_of_a_study_that_could_not_read_it(bank):
    bank.policy.write_text(bank.policy.read_text() + SEGMENTED)
    ours, all_ = study(name="ours"), study(name="all")
    with opened(bank) as vault:
        consent(vault, ours)
        consent(vault, all_)
        charge(vault, ours, "train/1", segments=("a", "b"))
        charge(vault, ours, "train/2", segments=("b",))
        charge(vault, all_, "train/1")
    for customer in EVERYBODY:
        expected = counted(bank, customer)
        assert by_plan(told(bank, customer)) == expected
        if not held_out(customer):
            assert expected.get(ours.digest(), 0) == {"a": 1, "b": 2, "c": 0}[segment(customer)]


def test_where_a_column_divides_customers_all_segments_may_be_meant(bank):
    bank.policy.write_text(bank.policy.read_text() + SEGMENTED.replace('"hash"', '"region"'))
    plan = study()
    with opened(bank) as vault:
        consent(vault, plan)
        charge(vault, plan, "train/1", segments=("a",))
        charge(vault, plan, "train/2", segments=("b",))
    assert by_plan(told(bank, TRAINED)) == {plan.digest(): 2}


def test_a_plan_that_was_consented_to_twice_is_told_once(bank, history):
    with opened(bank) as vault:
        consent(vault, history[0])
    assert by_plan(told(bank, TRAINED)) == counted(bank, TRAINED)


def test_noise_that_was_not_the_systems_is_told_as_no_guarantee(bank):
    plan = study()
    with opened(bank) as vault:
        consent(vault, plan)
        charge(vault, plan, "train/1")
        charge(vault, plan, "train/2", random="seeded")
    (found,) = told(bank, TRAINED).studies
    assert "noise was os, seeded" in found.spent
    assert found.releases == 2


def test_a_table_that_was_sealed_before_the_charge_and_holds_the_customer_makes_it_certain(bank):
    before, after = study(name="before"), study(name="after")
    with opened(bank) as vault:
        consent(vault, before)
        charge(vault, before, "train/1")
        put(vault, CUSTOMERS, tables()[CUSTOMERS])
        consent(vault, after)
        charge(vault, after, "train/1")
    assert [study.when for study in told(bank, TRAINED).studies] == [POSSIBLE, CERTAIN]
    with opened(bank) as vault:
        put(vault, CUSTOMERS, without(tables()[CUSTOMERS], TRAINED))
    assert [study.when for study in told(bank, TRAINED).studies] == [POSSIBLE, POSSIBLE]


def test_new_keys_make_nothing_less_certain(bank):
    from coterie.clients.rekeying import rekey, rewrap

    plan = study()
    with opened(bank) as vault:
        consent(vault, plan)
        charge(vault, plan, "train/1")
        rewrap(vault)
        rekey(vault, CUSTOMERS, "age")
    assert [study.when for study in told(bank, TRAINED).studies] == [CERTAIN]


def test_a_plan_that_recommends_goes_by_the_table_of_interactions(bank):
    shown, learned = recommends(), study()
    with opened(bank) as vault:
        put(vault, INTERACTIONS, without(tables()[INTERACTIONS], TRAINED))
        for plan in (shown, learned):
            consent(vault, plan)
            charge(vault, plan, "gram/1")
    found = told(bank, TRAINED)
    assert [study.when for study in found.studies] == [POSSIBLE, CERTAIN]
    assert by_plan(found) == counted(bank, TRAINED)


@pytest.mark.parametrize(("name", "role"), [("overlap", "counted"), ("journey-joint", "trained")])
def test_a_match_goes_by_the_table_of_identifiers_and_a_study_of_matched_customers_by_both(bank, name, role):
    plan = read_study(STUDIES / f"{name}.toml").plan
    with opened(bank) as vault:
        consent(vault, plan)
        charge(vault, plan, "overlap/1")
    assert [(study.role, study.when) for study in told(bank, TRAINED).studies] == [(role, POSSIBLE)]
    with opened(bank) as vault:
        put(vault, IDENTIFIERS, all_tables()[IDENTIFIERS])
    assert [study.when for study in told(bank, TRAINED).studies] == [POSSIBLE]  # it was sealed after the charge
    with opened(bank) as vault:
        consent(vault, later := dataclasses.replace(plan, name="later"))
        charge(vault, later, "overlap/1")
    assert [study.when for study in told(bank, TRAINED).studies] == [POSSIBLE, CERTAIN]
    with opened(bank) as vault:
        put(vault, IDENTIFIERS, without(all_tables()[IDENTIFIERS], TRAINED))
    assert [study.when for study in told(bank, TRAINED).studies] == [POSSIBLE, POSSIBLE]


@pytest.mark.parametrize("damage", ["gone", "another plan", "no plan"])
def test_a_plan_that_is_not_kept_is_a_clear_fault_and_not_left_out(bank, history, damage):
    path = bank.plan(history[0].digest())
    path.write_text({"another plan": json.dumps({"plan": study(name="x").to_dict()}), "no plan": "{"}.get(damage, ""))
    if damage == "gone":
        path.unlink()
    with pytest.raises(FileFault, match="is not the plan that was consented to"):
        told(bank, TRAINED)


def test_asking_changes_nothing_and_names_nobody(bank, history):
    before = tree(bank.vault)
    found = told(bank, TRAINED)
    assert tree(bank.vault) == before
    assert TRAINED not in json.dumps(found.to_dict())
    assert Trace.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert told(bank, TRAINED) == found
