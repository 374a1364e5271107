"""Consent: policy beats plan, every reason is said at once, and no table is opened for it."""

import dataclasses
import datetime
import json
import re

import pytest

from coterie.clients.preview import preview_plan
from coterie.clients.wire import decode_release
from coterie.privacy.calibration import calibrate
from coterie.privacy.charges import Charge
from coterie.privacy.compliance import breaches
from coterie.privacy.errors import FileFault
from coterie.privacy.identity import Identity, verify
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Cohort, Partner
from coterie.privacy.policy import read_policy
from coterie.privacy.release import CODES, ConsentGiven, Refused, release_digest
from coterie.privacy.signed import sign
from coterie.tests.clients.federation import CONTRACT, TODAY, Federation, changed, files_of, study, watched

OTHER_KEY = Identity.create().public


def column(name, **changes):
    columns = tuple(dataclasses.replace(c, **(changes if c.name == name else {})) for c in CONTRACT.columns)
    return dataclasses.replace(CONTRACT, columns=columns)


# code -> what the policy says, what the plan says, and the place that the operator is told
RULES = {
    "expired": ({}, {"expires": TODAY.date() - datetime.timedelta(days=1)}, "plan.expires"),
    "purpose": ({"purposes": ["churn"]}, {}, "plan.purpose"),
    "customer": ({"customer": "household"}, {}, "plan.contract.customer"),
    "label": ({"labels": ["churned"]}, {}, "plan.contract.label"),
    "column": ({"columns": ["age", "region"]}, {}, "plan.contract.columns.spend"),
    "special-column": ({}, {"contract": column("age", sensitivity="special")}, "plan.contract.columns.age"),
    "family": ({"families": ["mlp"]}, {}, "plan.model.family"),
    "trust": ({"trust": []}, {}, "plan.privacy.trust"),
    "partners": ({"minimum_partners": 4}, {}, "plan.partners"),
    "cohort": ({"minimum_customers": 10}, {"cohort": Cohort(minimum_customers=11)}, "plan.cohort.minimum_customers"),
    "delta": ({"budget__delta": 1e-6}, {}, "plan.privacy.delta"),
    "study-budget": ({"budget__study_epsilon": 3.5}, {}, "plan.privacy.epsilon"),
    "budget": ({"budget__lifetime_epsilon": 1.0, "budget__study_epsilon": 4.0}, {}, "policy.budget"),
}


def lines(federation):
    return federation.report().splitlines()


def test_a_plan_that_the_policy_permits_is_consented_to_and_the_consent_is_signed(federation):
    given = federation.propose()
    assert isinstance(given, ConsentGiven)
    assert (given.plan, given.partner) == (federation.digest, "amber")
    message = b'coterie/consent/v1\n{"partner":"amber","plan":"%s"}' % federation.digest.encode()
    verify(federation.plan.partner("amber").key, given.signature, message)
    (entry,) = federation.entries()
    assert (entry.kind, entry.body["release"]) == ("consent", release_digest(given))


@pytest.mark.parametrize("code", RULES)
def test_each_rule_alone_refuses_with_its_code_and_a_fault(federation, code):
    policy, plan, place = RULES[code]
    federation.policy(**policy)
    refused = federation.propose(signed=federation.sign(**plan).to_bytes())
    assert refused == Refused(refused.plan, (code,))
    assert code in CODES
    assert all(line.startswith(f"{place}: ") and " Fix: " in line for line in lines(federation))
    groups = 2 if code == "budget" else 1  # a budget is asked for each of the two customer groups
    assert len(lines(federation)) == groups
    (entry,) = federation.entries()
    assert (entry.kind, entry.body["codes"]) == ("refusal", [code])


@pytest.mark.parametrize("roster", ["without it", "under another key"])
def test_a_roster_that_does_not_hold_the_partner_under_its_own_key_is_refused(federation, roster):
    others = federation.plan.partners[1:]
    own = () if roster == "without it" else (dataclasses.replace(federation.plan.partners[0], key=OTHER_KEY),)
    spare = (Partner(name="dogwood", customers=10),) if not own else ()
    refused = federation.propose(signed=federation.sign(partners=(*own, *others, *spare)).to_bytes())
    assert refused.codes == ("roster",)


def test_several_broken_rules_are_all_said_at_once(federation):
    policies = {key: value for code in RULES for key, value in RULES[code][0].items() if code != "budget"}
    plans = {key: value for _, changes, _ in RULES.values() for key, value in changes.items()}
    federation.policy(**policies)
    refused = federation.propose(signed=federation.sign(**plans, partners=federation.plan.partners[1:]).to_bytes())
    # The budget is asked only when the plan is otherwise permitted.
    assert set(refused.codes) == {"roster", *RULES} - {"budget"}
    assert len(lines(federation)) == len(refused.codes)


def test_the_last_day_of_a_plan_is_still_good(federation):
    assert isinstance(federation.propose(signed=federation.sign(expires=TODAY.date()).to_bytes()), ConsentGiven)


@pytest.mark.parametrize("policy", [None, "", "not = [toml", 'purposes = ["coupons"]'])
def test_a_missing_or_broken_policy_refuses_everything(federation, policy):
    path = federation.workspace().policy
    path.unlink()
    if policy is not None:
        path.write_text(policy, encoding="utf-8")
    assert federation.propose() == Refused("", ("policy-missing",))
    assert str(path) in federation.report()


def test_a_plan_signed_by_another_coordinator_is_refused(federation):
    forged = sign(federation.plan, Identity.create())
    assert federation.propose(signed=forged.to_bytes()) == Refused("", ("signature",))


def test_a_plan_altered_anywhere_is_refused(federation):
    signed = federation.signed.to_bytes()
    with federation.node() as node:
        for place in range(0, len(signed), 7):
            hurt = bytearray(signed)
            hurt[place] ^= 0x01
            assert node.propose(bytes(hurt)) == Refused("", ("signature",))
    assert set(federation.kinds()) == {"refusal"}


@pytest.mark.parametrize(
    "signed", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"format":1,"plan":2,"signature":"zz"}', b"\xff\xfe"]
)
def test_what_is_no_signed_plan_at_all_is_refused(federation, signed):
    assert federation.propose(signed=signed) == Refused("", ("signature",))


def test_a_larger_epsilon_under_the_old_signature_is_refused(federation):
    table = json.loads(federation.signed.to_bytes())
    table["plan"]["privacy"]["epsilon"] = 5.0
    assert federation.propose(signed=json.dumps(table).encode()).codes == ("signature",)


def test_a_plan_whose_budget_no_noise_keeps_is_refused_like_any_other(federation, monkeypatch):
    monkeypatch.setattr("coterie.privacy.leastnoise._MOST", 4.0)  # the search to the real limit takes a minute
    refused = federation.propose(signed=federation.sign(privacy__epsilon=0.1).to_bytes())
    assert refused.codes == ("study-budget",)
    assert "plan.privacy.epsilon" in federation.report()


@pytest.mark.parametrize("permitted", [True, False])
def test_consent_needs_no_table_and_opens_none(federation, permitted):
    if not permitted:
        federation.policy(purposes=["churn"])
    with watched(federation.streams()) as opened:
        answer = federation.propose()
    assert opened == []
    assert isinstance(answer, ConsentGiven if permitted else Refused)
    federation.lose()
    assert federation.propose() == answer
    federation.find()
    with watched(federation.streams()) as opened:
        federation.rows()
    assert opened  # the watch itself sees


def test_a_refusal_for_want_of_budget_says_what_is_left_and_how_many_runs(federation):
    federation.policy(budget__lifetime_epsilon=5.0, budget__study_epsilon=4.0)
    federation.propose()
    federation.train(round_=1)
    federation.train(round_=2)
    assert federation.propose(signed=federation.sign(name="autumn").to_bytes()).codes == ("budget",)
    (line,) = lines(federation)  # the held-out group has been charged nothing
    said = re.search(r"lifetime budget has epsilon ([\d.]+) of 5 left for group training: 0 more runs like this", line)
    (budget,) = (row for row in preview(federation) if row["group"] == "training")
    assert float(said[1]) == pytest.approx(5.0 - budget["spent"], abs=0.01)
    assert 0 < float(said[1]) < 4.0


def preview(federation):
    path = federation.root / "signed.json"
    path.write_bytes(federation.signed.to_bytes())
    return preview_plan(federation.folders["amber"], path)["budgets"]


def test_a_preview_counts_runs_that_really_fit_and_not_one_more(federation):
    federation.policy(budget__lifetime_epsilon=14.0, budget__study_epsilon=4.0)
    (row,) = (row for row in preview(federation) if row["group"] == "training")
    assert row["runs_left"] >= 2
    event, updates = calibrate(federation.plan).update, calibrate(federation.plan).updates
    with Ledger(federation.workspace().ledger, federation.clock) as ledger:
        for run in range(row["runs_left"]):
            for step in range(updates):
                charge = Charge(f"other-{run}", "coupons", f"train/{step}", 1, "training", event, "seeded")
                ledger.reserve(charge, [], declared=updates)
            admitted = isinstance(federation.propose(), ConsentGiven)
            assert admitted == (run + 1 < row["runs_left"])


def test_a_preview_writes_nothing_and_gives_the_reasons_in_full(federation):
    federation.policy(purposes=["churn"], families=["mlp"])
    path = federation.root / "signed.json"
    path.write_bytes(federation.signed.to_bytes())
    preview(federation)  # makes the ledger
    before = files_of(federation.folders["amber"])
    said = preview_plan(federation.folders["amber"], path)
    assert said["consents"] is False
    assert [reason.split(":")[0] for reason in said["reasons"]] == ["plan.purpose", "plan.model.family"]
    assert files_of(federation.folders["amber"]) == before


def test_a_study_that_is_half_spent_is_consented_to_again_and_counted_once(federation):
    federation.policy(budget__lifetime_epsilon=4.9, budget__study_epsilon=4.0)  # room for one such study
    federation.propose()
    federation.train(round_=1)
    federation.measure(round_=1)
    assert isinstance(federation.propose(), ConsentGiven)
    federation.train(round_=2)
    federation.measure(round_=2)
    assert isinstance(federation.propose(), ConsentGiven)
    assert len(federation.reservations()) == 4
    assert federation.propose(signed=federation.sign(name="autumn").to_bytes()).codes == ("budget",)


def test_a_purpose_has_a_budget_of_its_own(tmp_path):
    federation = Federation(tmp_path, study())
    federation.policy(budget__purposes={"coupons": 1.0}, budget__study_epsilon=4.0)
    assert federation.propose().codes == ("budget",)
    assert "budget of purpose coupons" in federation.report()
    federation.policy(purposes=["churn"])
    assert isinstance(federation.propose(signed=federation.sign(purpose="churn").to_bytes()), ConsentGiven)


def test_a_refusal_on_the_wire_holds_codes_and_no_word_of_the_policy(federation):
    federation.policy(purposes=["secret-purpose"], budget__study_epsilon=3.25, minimum_partners=345)
    grid = federation.grid()
    reply = federation.ask_plan(grid)
    refused = decode_release(reply.content, update=None, histogram=None)
    assert refused == Refused(federation.digest, ("partners", "purpose", "study-budget"))
    assert not any(word in wire for wire in grid.passed[1:] for word in (b"secret-purpose", b"3.25"))


def test_changed_replaces_parts_of_a_plan():
    assert changed(study(), privacy__epsilon=2.0).privacy.epsilon == 2.0


# --- secure aggregation ---------------------------------------------------------------------------------

SUMS = {"privacy__trust": "secure-aggregation", "privacy__threshold": 3}


def pinned(federation, **others):
    """Permit secure sums, with the other partners' true keys pinned but for `others`; None leaves one out."""
    true = {partner.name: partner.key for partner in federation.plan.partners if partner.name != "amber"}
    peers = {name: key for name, key in {**true, **others}.items() if key is not None}
    federation.policy(trust=["local", "secure-aggregation"], peers=peers)


def test_secure_sums_among_partners_whose_keys_are_pinned_are_consented_to(federation):
    pinned(federation, somebody=OTHER_KEY)
    given = federation.propose(signed=federation.sign(**SUMS).to_bytes())
    assert isinstance(given, ConsentGiven)
    (entry,) = federation.entries()
    for name in ("update", "histogram"):
        assert entry.body[name]["kind"] == "distributed-gaussian"
        assert entry.body[name]["shares"] == 2  # a threshold of three, less one who may collude
    assert entry.body["updates"] == 4  # two rounds of two steps


@pytest.mark.parametrize(
    ("others", "missing"),
    [
        ({"cedar": None}, ["cedar"]),
        ({"cedar": OTHER_KEY}, ["cedar"]),
        ({"birch": "another", "cedar": None}, ["birch", "cedar"]),
    ],
)
def test_a_partner_whose_key_was_not_compared_is_no_peer_in_secure_sums(federation, others, missing):
    pinned(federation, **others)
    refused = federation.propose(signed=federation.sign(**SUMS).to_bytes())
    assert refused.codes == ("peers",)
    assert [line.split(":")[0] for line in lines(federation)] == [f"plan.partners.{name}" for name in missing]
    assert all("compare its key with the partner itself" in line for line in lines(federation))
    # A study in which each adds all its own noise needs nobody's key.
    assert isinstance(federation.propose(), ConsentGiven)


def test_keys_that_two_partners_exchange_are_not_theirs(federation):
    birch, cedar = (federation.plan.partner(name).key for name in ("birch", "cedar"))
    pinned(federation, birch=cedar, cedar=birch)
    assert federation.propose(signed=federation.sign(**SUMS).to_bytes()).codes == ("peers",)


def test_a_partner_need_not_pin_itself_and_is_not_helped_by_it(federation):
    pinned(federation, amber=OTHER_KEY)
    assert isinstance(federation.propose(signed=federation.sign(**SUMS).to_bytes()), ConsentGiven)


def test_secure_sums_are_permitted_by_their_own_word(federation):
    pinned(federation)
    federation.policy(trust=["local"])
    assert federation.propose(signed=federation.sign(**SUMS).to_bytes()).codes == ("trust",)
    federation.policy(trust=["secure-aggregation"])
    assert federation.propose().codes == ("trust",)


def test_secure_sums_that_assume_fewer_colluders_than_the_policy_are_not_trusted(federation):
    pinned(federation)
    federation.policy(minimum_colluders=2)
    assert federation.propose(signed=federation.sign(**SUMS).to_bytes()).codes == ("trust",)
    assert [line.split(":")[0] for line in lines(federation)] == ["plan.privacy.colluders"]
    assert " 2 " in lines(federation)[0]
    # Where each adds all its own noise, nobody's colluding matters.
    assert isinstance(federation.propose(), ConsentGiven)
    federation.policy(minimum_colluders=1)
    assert isinstance(federation.propose(signed=federation.sign(name="again", **SUMS).to_bytes()), ConsentGiven)


@pytest.mark.parametrize(("asked", "assumed", "codes"), [(1, 1, []), (2, 2, []), (2, 3, []), (3, 2, ["trust"])])
def test_as_many_colluders_as_the_policy_asks_for_are_enough(federation, asked, assumed, codes):
    pinned(federation)
    federation.policy(minimum_colluders=asked)
    policy = read_policy(federation.workspace("amber").policy)
    plan = changed(federation.plan, privacy__colluders=assumed, **SUMS)
    assert [reason.code for reason in breaches(plan, policy, "amber")] == codes


@pytest.mark.parametrize("number", ["0", "1001", "1.5", "true", '"2"'])
def test_a_number_of_colluders_out_of_range_is_no_policy(federation, number):
    path = federation.workspace("amber").policy
    path.write_text(f"minimum_colluders = {number}\n" + path.read_text())
    with pytest.raises(FileFault, match="minimum_colluders"):
        read_policy(path)
