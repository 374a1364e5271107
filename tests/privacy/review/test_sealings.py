"""The reviewer sees the vault: what was sealed, under which keys, and erased; and what of it cannot be true."""

import dataclasses
import datetime
import json

import pytest

from coterie.clients.erasing import erase
from coterie.clients.rekeying import move_keys, rekey, rewrap
from coterie.clients.vault import open_vault
from coterie.privacy.fields.sources.settings import KeySettings, new_key_source
from coterie.privacy.review.atrest import DataSet
from coterie.privacy.review.difference import difference
from coterie.privacy.review.explain import explain
from coterie.privacy.review.facts import DECLARED, VERIFIED, facts
from coterie.privacy.review.impact import impact_draft
from coterie.privacy.review.page.content import Reviewed
from coterie.privacy.review.page.render import render
from coterie.privacy.review.registry import registry_record
from coterie.tests.privacy.review.bundles import (
    Story,
    began,
    exported,
    failing,
    folder,
    made,
    opened,
    resigned,
    verdict_of,
    wanting,
)

ELSEWHERE = {"consent": {"elsewhere": {"coupons": "contract, see the register", "calls": "contract"}}}
NOT_PROVABLE = {"shredded": "not-provable"}


def check(bundle):
    """How the vault's check went: its status, and each finding; None where it was not asked."""
    found = [c for c in verdict_of(bundle).checks if c.name == "vault"]
    return (found[0].status, [(one.entry, one.says) for one in found[0].findings]) if found else None


def one(story):
    """The only finding of a story: the check's status, its entry and what it says."""
    status, ((entry, says),) = check(story.bundle())
    return status, entry, says


def sealed(*datasets, **rules):
    """A story whose data sets were sealed, and whose purposes rest on another ground than consents."""
    story = Story(**{**ELSEWHERE, **rules})
    for name in datasets or ("customers",):
        story.vault(name)
    return story


def later(story, days=1):
    story.now += datetime.timedelta(days=days)
    return story


def erased(story, *datasets, epoch="0002", **changes):
    """Erase a customer as it must be."""
    for name in datasets:
        story.vault(name, "erased", epoch=epoch, **{k: v for k, v in changes.items() if k == "keys"})
    return story.erasure(*datasets, epoch=epoch, **changes)


# --- what holds -------------------------------------------------------------------------------------------


def test_a_vault_with_new_keys_and_erasures_holds_and_is_told_as_it_was():
    story = sealed("customers", "consents")
    later(story).vault("customers", "rewrapped", epoch="0002")
    story.vault("consents", "rewrapped", epoch="0002")
    later(story).vault("customers", "rekeyed", epoch="0002")
    place = erased(later(story), "customers", "consents", epoch="0003")
    later(story).vault("customers", epoch="0003")
    bundle = story.bundle()
    assert check(bundle) == ("holds", [])
    found = verdict_of(bundle).at_rest
    days = [f"2031-05-{day:02}T12:00:00+00:00" for day in range(4, 9)]
    assert found.datasets == (
        DataSet("customers", 5, 2, days[0], days[4], "mount", "0003", days[3], days[2]),
        DataSet("consents", 3, 1, days[0], days[3], "mount", "0003", days[3], ""),
    )
    (erasure,) = found.erasures
    assert (erasure.entry, erasure.at, erasure.datasets) == (place, days[3], ("customers", "consents"))
    assert erasure.destroyed
    assert found.sources == ((days[0], "mount"),)


def test_every_source_holds_that_says_of_older_keys_what_is_so():
    for keys, word in [("file", "not-provable"), ("passphrase", "not-provable"), ("transit", "destroyed")]:
        story = Story(**ELSEWHERE)
        story.vault(keys=keys)
        erased(story, "customers", keys=keys, shredded=word)
        assert check(story.bundle()) == ("holds", [])


def test_an_erasure_that_was_cut_short_and_finished_after_a_rotation_holds():
    story = sealed("customers", "consents")
    story.vault("customers", "erased", epoch="0002")
    story.vault("consents", "erased", epoch="0002")
    for name in ("customers", "consents"):
        story.vault(name, "rewrapped", epoch="0003")
    story.vault("customers", "rekeyed", epoch="0003")
    story.erasure("customers", "consents", epoch="0003")
    assert check(story.bundle()) == ("holds", [])


def test_two_customers_may_be_erased_one_after_the_other_and_a_source_left_and_taken_again():
    story = sealed()
    erased(story, "customers", epoch="0002")
    erased(story, "customers", epoch="0003")
    story.vault(what="rewrapped", keys="transit", epoch="v1")
    story.vault(what="rewrapped", keys="mount", epoch="0001")  # another mount, which counts from the start
    assert check(story.bundle()) == ("holds", [])


def test_a_ledger_of_an_earlier_version_is_asked_nothing():
    story = Story()
    plan = story.plan()
    story.consent(plan)
    story.charge(plan)
    bundle = story.bundle()
    assert check(bundle) is None
    assert verdict_of(bundle).at_rest.datasets == ()
    assert (verdict_of(bundle).at_rest.charges, verdict_of(bundle).at_rest.committed) == (1, 0)


# --- lies -------------------------------------------------------------------------------------------------


def skips(story):
    return story.vault(version=3)


def repeats(story):
    return story.vault(version=1)


def begins_late(story):
    return story.vault("consents", version=2)


def erases_nothing(story):
    return story.vault("consents", "erased", epoch="0002")


def wraps_nothing_anew(story):
    return story.vault(what="rewrapped")


def comes_of_nowhere(story):
    return story.vault(what="rekeyed", keys="transit", epoch="v1")


def names_one_manifest_twice(story):
    manifest = story.parts["entry"][-1]["body"]["manifest"]
    return story.vault(what="rewrapped", epoch="0002", manifest=manifest)


def another_epoch(story):
    story.vault(what="erased", epoch="0002")
    return story.erasure("customers", epoch="0003")


def another_source(story):
    story.vault(what="erased", epoch="0002")
    return story.erasure("customers", epoch="0002", keys="transit")


def rotates_alone(story):
    story.vault(what="rewrapped", epoch="0002")
    return story.erasure("customers")


def does_nothing(story):
    return story.erasure("customers", epoch="0001")


def erases_once_for_two(story):
    erased(story, "customers")
    return story.erasure("customers")


def leaves_one_out(story):
    story.vault("interactions")
    return erased(story, "customers")


def rewraps_one(story):
    story.vault("interactions")
    story.vault("interactions", "rewrapped", epoch="0002")
    story.vault("customers", "erased", epoch="0002")
    return story.erasure("customers", "interactions")


def names_what_is_not_there(story):
    story.vault(what="erased", epoch="0002")
    return story.erasure("customers", "letters")


def uses_a_dead_key(story):
    erased(story, "customers")
    return story.vault(epoch="0001")


LIES = {
    skips: "is not the version after",
    repeats: "is not the version after",
    begins_late: "is not the version after",
    erases_nothing: "changes a data set that was never sealed",
    wraps_nothing_anew: "is under the key-encryption key of the version before it",
    comes_of_nowhere: "comes from another source of keys",
    names_one_manifest_twice: "names the manifest of the version before it",
    another_epoch: "names another key-encryption key than customers is under",
    another_source: "names another key-encryption key than customers is under",
    rotates_alone: "names customers, which was not erased from",
    does_nothing: "names customers, which was not erased from",
    erases_once_for_two: "names customers, which was not erased from",
    leaves_one_out: "leaves out interactions, which was sealed",
    rewraps_one: "names interactions, which was not erased from",
    names_what_is_not_there: "names a data set that was never sealed",
    uses_a_dead_key: "is under a key-encryption key that was said to be destroyed",
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_what_cannot_be_true_is_named(lie):
    story = sealed()
    place = lie(story)
    status, entry, says = one(story)
    assert (status, entry) == ("fails", place)
    assert LIES[lie] in says


def test_an_erasure_under_the_key_of_older_copies_is_named():
    story = sealed()
    place = story.vault(what="erased")
    story.erasure("customers", epoch="0001")
    status, entry, says = one(story)
    assert (status, entry) == ("fails", place)
    assert "which older copies are under" in says


@pytest.mark.parametrize("keys", ["file", "passphrase"])
def test_keys_that_lie_beside_the_vault_are_never_destroyed_for_good(keys):
    story = Story(**ELSEWHERE)
    story.vault(keys=keys)
    place = erased(story, "customers", keys=keys)
    status, entry, says = one(story)
    assert (status, entry) == ("fails", place)
    assert "older keys were destroyed, though backups of the workspace hold them" in says


# --- what cannot be decided -------------------------------------------------------------------------------


def test_a_table_that_was_sealed_while_a_customer_was_being_erased_is_a_question():
    story = sealed("customers", "consents")
    story.vault("customers", "erased", epoch="0002")
    story.vault("customers", epoch="0002")
    story.vault("consents", "erased", epoch="0002")
    place = story.erasure("customers", "consents")
    status, entry, says = one(story)
    assert (status, entry) == ("open", place)
    assert "customers was sealed from a table while a customer was being erased" in says


def test_an_erasure_that_was_never_finished_is_a_question():
    story = sealed()
    place = story.vault(what="erased", epoch="0002")
    assert one(story)[:2] == ("open", place)
    story.erasure("customers")
    assert check(story.bundle()) == ("holds", [])


def test_copies_under_keys_of_an_earlier_source_are_a_question():
    for keys in ("file", "transit"):
        story = Story(**ELSEWHERE)
        story.vault(keys=keys)
        story.vault(what="rewrapped")
        place = erased(story, "customers")
        status, entry, says = one(story)
        assert (status, entry) == ("open", place)
        assert "some copies were under keys of another source" in says
        (told,) = [text for text in words(story) if "a customer was erased" in text]
        assert "older copies cannot be proved dead" in told


def test_a_source_that_is_not_known_is_a_question():
    story = Story(**ELSEWHERE)
    story.vault(keys="smartcard")
    place = erased(story, "customers", keys="smartcard")
    assert one(story) == ("open", place, "names a source of keys that this version does not know")


def test_charges_before_any_table_was_sealed_are_one_question_at_the_first():
    story = Story(**ELSEWHERE)
    plan = story.plan()
    story.consent(plan)
    first = story.charge(plan, "train/1")
    story.vault("consents")
    story.charge(plan, "train/2")
    story.vault("customers")
    story.charge(plan, "evaluate/1")
    status, entry, says = one(story)
    assert (status, entry) == ("open", first)
    assert "the table lay unsealed then" in says
    found = verdict_of(story.bundle()).at_rest
    assert (found.charges, found.before) == (3, 2)


@pytest.mark.parametrize(("dataset", "read"), [("identifiers", True), ("matches", False), ("consents", False)])
def test_a_match_is_charged_on_sealed_identifiers_and_on_nothing_that_a_match_left(dataset, read):
    story = Story(**ELSEWHERE)
    plan = story.plan()
    story.consent(plan)
    story.vault(dataset)
    story.charge(plan, "train/1")
    assert verdict_of(story.bundle()).at_rest.before == (0 if read else 1)


def test_who_commits_to_counts_and_sealed_nothing_does_not_pass_for_an_earlier_version():
    story = Story(**ELSEWHERE)
    plan = story.plan()
    story.consent(plan)
    place = story.charge(plan)
    story.parts["entry"][place - 1]["body"]["rows"] = "sha256:" + "ab" * 32
    assert one(story)[:2] == ("open", place)
    assert verdict_of(story.bundle()).at_rest.committed == 1


# --- consents ---------------------------------------------------------------------------------------------


def asked(story, **changes):
    """Consent to a plan and charge for it; returns both places."""
    plan = story.plan(**changes)
    return story.consent(plan), story.charge(plan), story.charge(plan, "train/2")


def test_a_purpose_that_rests_on_consents_needs_a_table_of_them():
    story = Story()
    story.vault("customers")
    consent, charge, _ = asked(story)
    status, findings = check(story.bundle())
    assert status == "fails"
    assert [entry for entry, _ in findings] == [consent, charge]
    assert all("rests on customers' consents, while no table of them was sealed" in says for _, says in findings)


def test_with_the_table_or_on_another_ground_it_holds():
    with_table = Story()
    with_table.vault("customers")
    with_table.vault("consents")
    grounded = sealed()
    for story in (with_table, grounded):
        asked(story)
        assert check(story.bundle()) == ("holds", [])


def test_leaving_the_plan_out_changes_nothing():
    story = Story()
    story.vault("customers")
    consent, charge, _ = asked(story)
    story.parts["plan"].clear()
    assert [entry for entry, _ in check(story.bundle())[1]] == [consent, charge]


def test_a_table_that_came_later_is_none_for_what_was_before():
    story = Story()
    story.vault("customers")
    plan = story.plan()
    consent = story.consent(plan)
    story.vault("consents")
    story.charge(plan)
    assert one(story)[:2] == ("fails", consent)


def test_a_table_that_came_before_the_policy_but_after_the_consent_is_none_for_it():
    story = Story()
    story.vault("customers")
    policy = story.rule(minimum_customers=11)
    consent = story.consent(story.plan(cohort__minimum_customers=11))
    story.vault("consents")
    entries = story.parts["entry"]
    entries.append(entries.pop(policy - 1))
    status, findings = check(story.bundle())
    assert (status, [entry for entry, _ in findings]) == ("fails", [consent - 1])


def test_the_ground_of_another_purpose_is_none_whether_or_not_anything_was_sealed():
    story = Story(consent={"elsewhere": {"calls": "contract"}})
    consent, charge, _ = asked(story)
    status, findings = check(story.bundle())
    assert (status, [entry for entry, _ in findings]) == ("fails", [consent, charge])


def test_a_charge_is_held_to_the_policy_that_is_in_force_then():
    story = sealed()
    plan = story.plan()
    story.consent(plan)
    story.charge(plan, "train/1")
    story.rule()
    late = story.charge(plan, "train/2")
    assert one(story)[:2] == ("fails", late)


# --- what a reader is told --------------------------------------------------------------------------------


def words(story):
    """The explanation's section about the data."""
    return next(s.paragraphs for s in explain(verdict_of(story.bundle())) if s.title == "The data")


def test_the_data_are_told_in_plain_words():
    story = sealed("customers", "consents")
    later(story).vault("customers", "rewrapped", epoch="0002")
    later(story).vault("customers", "rekeyed", epoch="0002")
    story.vault("consents", "rewrapped", epoch="0002")
    erased(later(story), "customers", "consents", epoch="0003")
    assert words(story)[:3] == (
        "The customers' table was sealed on 2031-05-04 and changed 3 times since, the last time on 2031-05-07. Its "
        "keys come from a folder outside the workspace; the newest key-encryption key is of 2031-05-07, and data keys "
        "of single columns were last renewed on 2031-05-06.",
        "The table of consents was sealed on 2031-05-04 and changed 2 times since, the last time on 2031-05-07. Its "
        "keys come from a folder outside the workspace; the newest key-encryption key is of 2031-05-07.",
        "On 2031-05-07 a customer was erased from the customers' table and the table of consents; older copies are "
        "dead: the keys that they were under are said to be destroyed, outside of backups.",
    )


def test_what_cannot_be_proved_dead_is_said_with_its_reason():
    story = Story(**ELSEWHERE)
    story.vault(keys="passphrase")
    assert "No customer was erased." in words(story)
    erased(story, "customers", keys="passphrase", shredded="not-provable")
    (told,) = [text for text in words(story) if "erased" in text]
    assert told.endswith(
        "older copies cannot be proved dead, since the keys come from a passphrase, and a backup of the workspace may "
        "hold what opens it."
    )
    lie = Story(**ELSEWHERE)
    lie.vault(keys="passphrase")
    erased(lie, "customers", keys="passphrase")
    assert words(lie)[0].startswith("What the ledger says here contradicts itself")
    assert not [text for text in words(lie) if "are dead" in text]


def test_a_ledger_of_an_earlier_version_is_said_to_tell_nothing():
    assert words(Story()) == (
        "How the customers' rows lay on the partner's disks, this ledger tells nothing: the ledger has no entry about "
        "a vault, as those of earlier versions.",
    )


def test_facts_rest_on_the_ledger_and_never_assert():
    story = sealed()
    asked(story)
    verdict = verdict_of(story.bundle())
    told = [one for one in facts(verdict, verdict.studies[0]) if one.topic == "encryption at rest"]
    assert [(one.name, one.basis) for one in told] == [
        ("how", DECLARED),
        ("said to be sealed: customers", VERIFIED),
        ("customers erased", VERIFIED),
    ]
    assert "keys from a folder outside the workspace, epoch 0001" in told[1].value
    record = registry_record(verdict, verdict.studies[0])["evidence"]
    assert "said to be sealed: customers" in record["encryption_at_rest"]
    assert "customers' table was sealed on 2031-05-04" in impact_draft(verdict)
    story.vault(version=7)
    verdict = verdict_of(story.bundle())
    told = [one for one in facts(verdict, verdict.studies[0]) if one.topic == "encryption at rest"]
    assert {one.basis for one in told} == {DECLARED}
    assert 'the check "vault" fails' in told[1].value


def test_the_same_is_in_the_verdict_as_json_and_on_the_page():
    story = sealed()
    place = erased(story, "customers")
    verdict = verdict_of(story.bundle())
    told = json.loads(json.dumps(verdict.to_dict()))["at_rest"]
    assert told["datasets"][0]["epoch"] == "0002"
    assert told["erasures"] == [
        {"entry": place, "at": story.now.isoformat(), "datasets": ["customers"], "keys": "mount", "destroyed": True}
    ]
    page = render([Reviewed(verdict)])
    assert '<h3 id="p1-data">' in page
    assert "a folder outside the workspace" in page
    assert "On 2031-05-04 a customer was erased from" in page


def test_what_happened_to_the_vault_between_two_bundles_is_told():
    story = sealed()
    old = verdict_of(story.bundle())
    later(story).vault("customers", "rewrapped", keys="transit", epoch="v1")
    story.vault("consents", keys="transit", epoch="v1")
    erased(later(story), "customers", "consents", keys="transit", epoch="v2")
    new = verdict_of(story.bundle())
    found = difference(old, new)
    assert not [text for text in found.findings if "vault" in text]
    assert {change.name: (change.then, change.now) for change in found.vault} == {
        "customers, versions": (
            "1, sealed from a table 1, last changed 2031-05-04",
            "3, sealed from a table 1, last changed 2031-05-06",
        ),
        "customers, keys from": ("a folder outside the workspace", "a key server"),
        "customers, key-encryption key": ("0001, of 2031-05-04", "v2, of 2031-05-06"),
        "consents, versions": ("", "2, sealed from a table 1, last changed 2031-05-06"),
        "consents, keys from": ("", "a key server"),
        "consents, key-encryption key": ("", "v2, of 2031-05-06"),
        "source of keys, changed to": ("", "2031-05-05 a key server"),
    }
    (erasure,) = found.erasures
    assert erasure in found.lines()
    assert difference(new, new).vault == difference(new, new).erasures == ()
    for back in (dataclasses.replace(new.at_rest, erasures=()), dataclasses.replace(new.at_rest, datasets=())):
        rewritten = difference(new, dataclasses.replace(new, at_rest=back))
        assert any("vault and of erasures is another story" in text for text in rewritten.findings)


# --- real partners ----------------------------------------------------------------------------------------


def test_what_real_partners_do_holds_and_every_charge_commits_to_its_counts():
    for bundle in made().bundles.values():
        verdict = verdict_of(bundle)
        assert check(bundle) == ("holds", [])
        assert verdict.at_rest.committed == verdict.at_rest.charges > 0
        assert [(one.name, one.keys, one.versions) for one in verdict.at_rest.datasets] == [("customers", "file", 1)]


def test_a_real_bundle_without_its_seal_is_told():
    lie = opened(made().bundle)
    lie.remove(lie.at("vault"))
    forged = resigned(lie, made().partner, made().coordinator)
    assert wanting(verdict_of(forged))["vault"] == ("open", lie.at("reserve"))


def test_a_real_partner_rotates_moves_its_keys_and_erases_and_a_lie_about_it_is_found():
    federation = began()
    root = federation.folders["amber"]
    with open_vault(root, federation.clock) as vault:
        rewrap(vault)
        rekey(vault, "customers", "age")
        customer = next(vault.table("customers").pieces(["customer"]))["customer"][0].as_py()
        done = erase(vault, customer)
        assert not done.proved
        wanted = KeySettings(source="mount", path=str(folder()))
        source = new_key_source(wanted, root, environment={}, ask=str)
        move_keys(vault, source)
        vault.workspace.keep_keys(wanted)
    federation.run()
    bundle = exported(federation)
    assert wanting(verdict_of(bundle)) == {}
    found = verdict_of(bundle).at_rest
    assert [keys for _, keys in found.sources] == ["file", "mount"]
    assert [(one.versions, one.sealed, one.epoch) for one in found.datasets] == [(5, 1, "0001")]
    assert [(one.keys, one.destroyed) for one in found.erasures] == [("file", False)]
    lie = opened(bundle)
    place = lie.at("erasure")
    lie.entries[place - 1]["body"]["shredded"] = "destroyed"
    forged = resigned(lie, federation.workspace().identity, federation.coordinator)
    assert failing(verdict_of(forged)) == {"vault": place}
