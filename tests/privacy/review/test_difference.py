"""What changed between two bundles of one partner."""

import dataclasses
import json

import pytest

from coterie.privacy.review.difference import difference
from coterie.privacy.review.kept import earlier_note
from coterie.privacy.review.verify import verify_bundle
from coterie.tests.privacy.review.test_facts import federation, hostile, reviewed, silent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return federation(tmp_path_factory.mktemp("difference"))


@pytest.fixture(scope="module")
def old(made):
    """After one update."""
    made.propose()
    made.train("amber", 1)
    return reviewed(made, "old")


@pytest.fixture(scope="module")
def new(made, old):
    """After a histogram, another policy, another study, and a refusal."""
    made.measure("amber", 1)
    made.policy(purposes=["coupons", "renewal"], minimum_partners=2, budget__lifetime_epsilon=30.0)
    made.propose("amber", made.sign(purpose="renewal", name="autumn").to_bytes())
    made.propose("amber", made.sign(purpose="astrology", name="stars").to_bytes())
    return reviewed(made, "new", earlier=[earlier_note(made.root / "old.bundle")])


def test_everything_that_was_added_is_told(made, old, new):
    found = difference(old, new)
    assert found.findings == ()
    assert found.extends == "holds"
    assert found.entries == (old.size, len(made.everything()))
    assert found.charges == (1, sum(entry.kind == "reserve" for entry in made.entries()))
    assert found.studies_added == ("autumn",)
    assert [change.name for change in found.studies_changed] == ["spring"]
    assert "holdout 0 of 2" in found.studies_changed[0].then
    assert "holdout 1 of 2" in found.studies_changed[0].now
    assert found.refusals == (("purpose",),)
    assert found.models == ()
    assert found.policies == 1


def test_the_policy_is_compared_key_by_key(old, new):
    changes = {change.name: (change.then, change.now) for change in difference(old, new).policy}
    assert changes == {
        "budget.lifetime_epsilon": ("24", "30"),
        "consent.elsewhere.renewal": ("", '"tests: made-up customers"'),
        "minimum_partners": ("3", "2"),
        "purposes, what differs": ("[]", '["renewal"]'),
    }


def test_budgets_are_told_then_and_now(old, new):
    moved = {one.group: one for one in difference(old, new).budgets}
    shares = {one.group: one.share for one in new.budgets}
    assert (moved["holdout"].epsilon_now, moved["holdout"].share_now) == (30.0, shares["holdout"])
    assert moved["training"].epsilon_then == 24
    assert moved["training"].share_then > moved["training"].share_now  # a larger budget: as much is a smaller part


def test_words_and_plain_values_say_the_same(old, new):
    found = difference(old, new)
    table = found.to_dict()
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    lines = found.lines()
    assert lines[0].startswith("The new ledger extends the old one")
    assert "New study: “autumn”." in lines
    assert any(line.startswith("Rule “minimum_partners”: 3 then, 2 now") for line in lines)
    assert "Refused: purpose." in lines
    assert not any(line.startswith("FINDING") for line in lines)


def test_the_same_bundle_twice_differs_in_nothing(old):
    found = difference(old, old)
    assert (found.findings, found.extends, found.policy, found.studies_changed) == ((), "holds", (), ())
    assert len(found.lines()) == 2


def test_swapped_bundles_are_a_finding(old, new):
    found = difference(new, old)
    assert found.extends == "fails"
    assert any("fewer entries" in finding for finding in found.findings)
    assert any("“autumn” is not in the new" in finding for finding in found.findings)
    assert any("fewer charges" in finding for finding in found.findings)


def test_without_the_earlier_checkpoint_nothing_is_promised(made, old, new):
    found = difference(old, verify_bundle(made.root / "new.bundle"))
    assert found.extends == "open"
    assert "was not decided" in found.lines()[0]


def test_another_partner_is_a_finding(tmp_path, old):
    other = federation(tmp_path)
    other.propose()
    other.train("amber", 1)
    found = difference(old, reviewed(other, "other"))
    assert found.extends == "fails"
    assert "different keys" in found.findings[0]
    renamed = difference(old, dataclasses.replace(old, partner="someone"))
    assert "is called “amber”" in renamed.findings[0]


def test_a_history_that_was_rewritten_is_a_finding(made, tmp_path, old):
    forked = federation(tmp_path)
    forked.propose()
    forked.train("amber", 1)
    forked.measure("amber", 1)
    verdict = reviewed(forked, "forked", earlier=[earlier_note(made.root / "old.bundle")])
    found = difference(dataclasses.replace(old, key=verdict.key), verdict)
    assert found.extends == "fails"
    assert any("does not extend" in finding for finding in found.findings)
    assert difference(old, dataclasses.replace(old, root="0" * 64)).extends == "fails"


def test_a_model_is_told_and_one_that_vanishes_is_a_finding(tmp_path):
    whole = federation(tmp_path)
    before = reviewed(whole, "before")
    whole.run()
    after = reviewed(whole, "after", earlier=[earlier_note(whole.root / "before.bundle")])
    found = difference(before, after)
    assert found.models == ("spring",)
    assert found.findings == ()
    assert "Model received: “spring”." in found.lines()
    vanished = difference(after, dataclasses.replace(after, models=()))
    assert any("model, refusal or policy" in finding for finding in vanished.findings)


def test_hostile_texts_stay_plain_text(old):
    found = difference(dataclasses.replace(old, studies=(), policy=None, budgets=()), hostile(old))
    assert all(line.isprintable() for line in found.lines())
    assert json.dumps(found.to_dict(), ensure_ascii=False).isprintable()
    assert any("<script>" in line for line in found.lines())


def test_nothing_of_the_table_is_told(old, new):
    assert silent("\n".join(difference(old, new).lines()))
    assert silent(json.dumps(difference(old, new).to_dict()))
