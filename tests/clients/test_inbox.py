"""The operator's word: nothing runs that nobody approved, and a no stops what runs, whatever the coordinator sends."""

import dataclasses
import datetime
import math

import pytest

from coterie.clients import inbox
from coterie.clients.deciding import Decision, PlanRefused, decide, find
from coterie.clients.door import ERROR_CODE
from coterie.clients.inbox import look
from coterie.clients.patience import patiently
from coterie.clients.preview import preview_plan, spent_budgets
from coterie.clients.refusals import TaskRefused
from coterie.clients.workspace import WorkspaceBusy
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.charges import Charge
from coterie.privacy.compliance import APPROVED, DECLINED
from coterie.privacy.errors import FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.release import CODES, ConsentGiven, Refused
from coterie.privacy.signed import sign
from coterie.tests.clients.federation import TODAY, changed, files_of, today, watched
from coterie.tests.clients.summing import PLAN, Summing

TWO = ("train", "measure")


@pytest.fixture
def asked(federation):
    """A federation whose partner's policy approves nothing by itself."""
    federation.policy(approval=None)
    return federation


def say(federation, word, plan=None, **texts):
    return decide(federation.folders["amber"], plan or federation.digest, Decision(word, **texts), clock=today)


def words(federation):
    return [entry.body for entry in federation.everything() if entry.kind == "approval"]


def refused(call, *args):
    with pytest.raises(TaskRefused) as caught:
        call(*args)
    return caught.value.code


def kept(federation):
    return {path.name for path in (federation.folders["amber"] / "inbox").glob("*")}


def name_of(signed):
    return signed.plan.digest().removeprefix("sha256:") + ".json"


def later(federation, days):
    """Another plan of the same coordinator, that ends some days later."""
    return federation.sign(expires=federation.plan.expires + datetime.timedelta(days=days))


# --- nothing runs unapproved ------------------------------------------------------------------------------


def test_a_plan_that_nobody_approved_waits_and_no_task_of_it_is_done_however_often_it_is_sent(asked):
    with watched(asked.streams()) as opened:
        for _ in range(3):
            assert asked.propose() == Refused(asked.digest, ("awaiting",))
            assert {refused(getattr(asked, kind)) for kind in TWO} == {"no-consent"}
    assert opened == []
    assert asked.kinds() == ["refusal"]
    assert kept(asked) == {name_of(asked.signed)}
    path = asked.folders["amber"] / "inbox" / name_of(asked.signed)
    assert path.read_bytes() == asked.signed.to_bytes()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "coterie partner approve" in asked.report()


def test_a_plan_that_lies_among_those_consented_to_is_not_thereby_approved(asked):
    asked.propose()
    asked.workspace().plan(asked.digest).write_bytes(asked.signed.to_bytes())
    assert refused(asked.train) == "no-consent"


def test_an_approved_plan_is_consented_to_at_the_next_proposal_and_runs(asked):
    asked.propose()
    assert say(asked, APPROVED, by="data protection officer")
    assert refused(asked.train) == "no-consent"  # a yes alone is no consent
    assert isinstance(asked.propose(), ConsentGiven)
    asked.train()
    assert asked.kinds() == ["refusal", "approval", "consent", "reserve", "settle"]
    assert words(asked) == [{"plan": asked.digest, "decision": "approved", "by": "data protection officer"}]


def test_the_approval_of_one_plan_is_none_of_another_that_differs_in_a_day(asked):
    asked.propose()
    say(asked, APPROVED)
    other = later(asked, 1)
    assert asked.propose(signed=other.to_bytes()).codes == ("awaiting",)
    assert isinstance(asked.propose(), ConsentGiven)


def test_a_declined_plan_is_refused_as_such_until_the_operator_thinks_otherwise(asked):
    asked.propose()
    say(asked, DECLINED, reason="not agreed with marketing")
    assert asked.propose() == Refused(asked.digest, ("declined",))
    assert refused(asked.train) == "no-consent"
    say(asked, APPROVED)
    assert isinstance(asked.propose(), ConsentGiven)
    assert [body.get("reason") for body in words(asked)] == ["not agreed with marketing", None]


@pytest.mark.parametrize("how", ["automatic", "approved"])
def test_a_no_stops_a_study_that_runs_even_for_answers_that_were_given_before(federation, how):
    if how == "approved":
        federation.policy(approval=None)
        federation.propose()
        say(federation, APPROVED)
    assert isinstance(federation.propose(), ConsentGiven)
    federation.train()
    charged = federation.reservations()
    say(federation, DECLINED, reason="enough")
    assert refused(federation.train) == "no-consent"  # the very question that was answered
    assert refused(federation.train, "amber", 2) == "no-consent"
    assert refused(federation.measure) == "no-consent"
    assert federation.propose() == Refused(federation.digest, ("declined",))
    assert federation.reservations() == charged
    say(federation, APPROVED)
    assert isinstance(federation.propose(), ConsentGiven)
    federation.train("amber", 2)
    assert len(federation.reservations()) == len(charged) + 1


def test_a_no_stops_secure_sums_from_their_keys_on(tmp_path):
    federation = Summing(tmp_path / "federation", PLAN).consent().set_up()
    masked = {name: federation.add(name) for name in federation.names}
    signed = {name: federation.sign(masked, name) for name in federation.names}
    say(federation, DECLINED, reason="enough")
    before = len(federation.entries())
    for question in (
        federation.keys,
        federation.deal,
        federation.add,
        lambda: federation.add("amber", "train/2"),
        lambda: federation.sign(masked),
        lambda: federation.reveal(signed),
    ):
        assert refused(question) == "no-consent"
    assert len(federation.entries()) == before


# --- what the policy approves by itself -------------------------------------------------------------------

RULES = {
    "the very epsilon": ({"automatic_epsilon": 4.0}, True),
    "a little less epsilon": ({"automatic_epsilon": math.nextafter(4.0, 0)}, False),
    "its purpose named": ({"automatic_epsilon": 4.0, "purposes": ["calls", "coupons"]}, True),
    "another purpose": ({"automatic_epsilon": 4.0, "purposes": ["calls"]}, False),
    "no purpose": ({"automatic_epsilon": 4.0, "purposes": []}, False),
}


@pytest.mark.parametrize("name", RULES)
def test_a_plan_runs_by_itself_just_within_the_limits_that_the_policy_names(federation, name):
    rule, runs = RULES[name]
    federation.policy(approval=rule)
    answer = federation.propose()
    assert isinstance(answer, ConsentGiven) if runs else answer.codes == ("awaiting",)
    assert words(federation) == []
    assert kept(federation) == (set() if runs else {name_of(federation.signed)})


def test_an_automatic_approval_ends_with_the_rule_that_gave_it(agreed):
    agreed.train()
    agreed.policy(approval=None)
    assert refused(agreed.train, "amber", 2) == "no-consent"
    assert agreed.propose().codes == ("awaiting",)
    say(agreed, APPROVED)
    agreed.propose()
    agreed.train("amber", 2)


@pytest.mark.parametrize("limit", [0, -1.0, 100.5, "4"])
def test_a_limit_that_is_none_makes_a_broken_policy(federation, limit):
    federation.policy(approval={"automatic_epsilon": limit})
    assert federation.propose().codes == ("policy-missing",)


# --- what is kept -----------------------------------------------------------------------------------------

SPOKEN_AGAINST = {
    "purpose": {"purpose": "spying"},
    "study-budget": {"privacy__epsilon": 4.5},
    "expired": {"expires": TODAY.date() - datetime.timedelta(days=1)},
}


@pytest.mark.parametrize("code", [*SPOKEN_AGAINST, "signature"])
def test_a_plan_that_is_refused_for_another_reason_is_told_that_reason_alone_and_is_not_kept(asked, code):
    signed = sign(asked.plan, Identity.create()) if code == "signature" else asked.sign(**SPOKEN_AGAINST[code])
    assert asked.propose(signed=signed.to_bytes()).codes == (code,)
    assert kept(asked) == set()


def test_a_plan_whose_contract_nobody_looked_at_yet_is_kept_for_the_operator_to_import_a_table_for(asked):
    other = dataclasses.replace(asked.plan.contract, rows_per_customer=2)
    signed = sign(changed(asked.plan, contract=other), asked.coordinator)
    assert asked.propose(signed=signed.to_bytes()).codes == ("contract",)
    assert kept(asked) == {name_of(signed)}
    assert asked.propose(signed=asked.sign(purpose="spying").to_bytes()).codes == ("purpose",)
    assert kept(asked) == {name_of(signed)}


def test_a_full_inbox_takes_no_further_plan_and_drops_none_that_waits(asked, monkeypatch):
    monkeypatch.setattr(inbox, "MOST", 3)
    plans = [later(asked, days) for days in range(5)]
    for signed in plans:
        assert asked.propose(signed=signed.to_bytes()).codes == ("awaiting",)
    assert kept(asked) == {name_of(signed) for signed in plans[:3]}
    assert asked.report().count("inbox: holds 100 plans that wait") == 1
    say(asked, DECLINED, plans[1].plan.digest(), reason="no")
    for signed in plans[3:]:
        assert asked.propose(signed=signed.to_bytes()).codes == ("awaiting",)
    assert kept(asked) == {name_of(plans[place]) for place in (0, 2, 3)}
    asked.clock = lambda: TODAY.replace(year=2032, month=1, day=1)  # the first has expired since, and no other
    assert asked.propose(signed=plans[4].to_bytes()).codes == ("awaiting",)
    assert kept(asked) == {name_of(plans[place]) for place in (2, 3, 4)}


def test_the_new_words_stand_behind_those_whose_numbers_are_on_the_wire():
    assert list(CODES)[28:31] == ["rollback", "awaiting", "declined"]
    assert (ERROR_CODE["unavailable"], ERROR_CODE["rollback"]) == (100, 128)


# --- what the operator weighs -----------------------------------------------------------------------------


def rows(federation):
    return look(federation.folders["amber"], clock=today)


def test_a_look_says_what_a_waiting_plan_reads_releases_and_asks_and_changes_nothing(asked):
    asked.propose()
    before = files_of(asked.folders["amber"])
    (row,) = rows(asked)
    assert files_of(asked.folders["amber"]) == before
    assert (row["plan"], row["name"], row["purpose"], row["state"]) == (asked.digest, "spring", "coupons", "awaiting")
    assert (row["epsilon"], row["delta"], row["partners"]) == (4.0, 1e-5, ["amber", "birch", "cedar"])
    assert (row["expires"], row["decision"], row["reasons"]) == ("2031-12-31", None, [])
    assert row["reads"] == {
        "customer": "customer",
        "label": "bought",
        "columns": ["age", "spend", "region"],
        "special": [],
        "segments": [],
        "minimum_customers": 10,
        "identifier": "",
    }
    assert row["leaves"] == [
        {"what": "noisy model updates", "kind": "model-update", "count": 2},
        {"what": "noisy histograms", "kind": "score-histogram", "count": 2},
    ]


def test_secure_sums_are_told_as_masked_with_spare_ones_among_them(tmp_path):
    federation = Summing(tmp_path / "federation", changed(PLAN, training__spare=3))
    federation.policy(approval=None)
    assert federation.propose().codes == ("awaiting",)
    (row,) = rows(federation)
    assert [(kind["kind"], kind["count"]) for kind in row["leaves"]] == [("masked-vector", 5), ("masked-vector", 4)]
    assert all("masked" in kind["what"] for kind in row["leaves"])


def test_the_cost_that_is_shown_is_what_a_whole_study_adds_to_every_budget(asked):
    asked.policy(budget__purposes={"coupons": 12.0}, budget__year_epsilon=20.0)
    asked.propose()
    (row,) = rows(asked)
    shown = {(cost["budget"], cost["group"]): cost for cost in row["budgets"]}
    assert len(shown) == 6
    made = calibrate(asked.plan)
    with Ledger(asked.workspace().ledger, today) as ledger:
        for group, kind, event, count in (
            (TRAINING, "train", made.update, made.updates),
            (HOLDOUT, "evaluate", made.histogram, made.histograms),
        ):
            for number in range(1, count + 1):
                charge = Charge(asked.digest, "coupons", f"{kind}/{number}", 1, group, event, "os")
                ledger.reserve(charge, (), declared=count)
    for spent in spent_budgets(asked.folders["amber"]):
        cost = shown[spent["budget"], spent["group"]]
        assert cost["asked"] == pytest.approx(spent["spent"], rel=1e-12)
        assert cost["left"] == cost["limit"] == spent["limit"]
        assert cost["runs_left"] >= 1


def test_a_policy_that_no_longer_permits_a_waiting_plan_says_so_and_nobody_can_approve_it(asked):
    asked.propose()
    asked.policy(purposes=["calls"], labels=["other"])
    (row,) = rows(asked)
    assert len(row["reasons"]) == 2
    assert "plan.purpose" in row["reasons"][0]
    with pytest.raises(PlanRefused) as caught:
        say(asked, APPROVED)
    assert [fault.place for fault in caught.value.faults] == ["plan.purpose", "plan.contract.label"]
    assert words(asked) == []
    assert say(asked, DECLINED)


def test_every_plan_is_told_with_what_became_of_it(asked):
    plans = {word: later(asked, days) for days, word in enumerate(["approved", "declined", "awaiting"])}
    for signed in plans.values():
        asked.propose(signed=signed.to_bytes())
    say(asked, APPROVED, plans["approved"].plan.digest(), by="officer")
    say(asked, DECLINED, plans["declined"].plan.digest(), reason="no")
    asked.policy(approval={"automatic_epsilon": 1.0})
    automatic = asked.sign(privacy__epsilon=1.0)
    assert isinstance(asked.propose(signed=automatic.to_bytes()), ConsentGiven)
    told = {row["plan"]: row for row in rows(asked)}
    assert {digest: row["state"] for digest, row in told.items()} == {
        automatic.plan.digest(): "automatic",
        **{signed.plan.digest(): word for word, signed in plans.items()},
    }
    assert rows(asked)[0]["state"] == "awaiting"
    decided = told[plans["approved"].plan.digest()]["decision"]
    assert (decided["by"], decided["reason"], decided["at"][:10]) == ("officer", "", "2031-05-04")
    assert told[plans["declined"].plan.digest()]["decision"]["reason"] == "no"
    late = look(asked.folders["amber"], clock=lambda: TODAY.replace(year=2033))
    assert [row["state"] for row in late if row["plan"] == plans["awaiting"].plan.digest()] == ["expired"]


def test_a_file_in_the_inbox_that_the_coordinator_did_not_sign_is_not_told(asked):
    asked.propose()
    folder = asked.folders["amber"] / "inbox"
    (folder / "0.json").write_bytes(sign(changed(asked.plan, name="forged"), Identity.create()).to_bytes())
    (folder / "1.json").write_bytes(b"{")
    assert [row["name"] for row in rows(asked)] == ["spring"]


def test_a_preview_tells_apart_what_the_policy_says_and_whether_somebody_approved(asked, tmp_path):
    path = tmp_path / "plan.json"
    path.write_bytes(asked.signed.to_bytes())
    asked.propose()

    def told():
        found = preview_plan(asked.folders["amber"], path)
        return found["consents"], found["approval"], len(found["reasons"])

    assert told() == (True, "awaiting", 0)
    say(asked, APPROVED)
    assert told() == (True, "approved", 0)
    say(asked, DECLINED)
    assert told() == (False, "declined", 1)


# --- the word itself --------------------------------------------------------------------------------------


def test_a_plan_is_found_by_six_digits_or_by_a_name_that_no_other_has(asked):
    digits = asked.digest.removeprefix("sha256:")
    asked.propose()
    asked.propose(signed=asked.sign(name=digits[:10]).to_bytes())  # a coordinator's play with names
    asked.propose(signed=asked.sign(name="autumn").to_bytes())
    asked.propose(signed=asked.sign(name="autumn", purpose="coupons", privacy__epsilon=2.0).to_bytes())
    here = rows(asked)
    for wanted in ("spring", digits, digits[:6], f"sha256:{digits[:11]}", digits[:8].upper()):
        assert find(here, wanted)["plan"] == asked.digest
    for wanted, said in ((digits[:10], "names 2"), ("autumn", "names 2"), (digits[:5], "none"), ("sprin", "none")):
        with pytest.raises(FileFault, match=said):
            find(here, wanted)


def test_the_same_word_twice_is_written_once(asked):
    asked.propose()
    assert [say(asked, word) for word in (APPROVED, APPROVED, DECLINED, DECLINED, APPROVED)] == [
        *(True, False),
        *(True, False),
        True,
    ]
    assert [body["decision"] for body in words(asked)] == ["approved", "declined", "approved"]


@pytest.mark.parametrize("text", ["x" * 201, "a\nb", "\x1b[2J", "a\u202eb", "\ud800"])
@pytest.mark.parametrize("field", ["by", "reason"])
def test_a_text_that_the_ledger_cannot_hold_is_refused_before_anything_is_written(asked, field, text):
    asked.propose()
    with pytest.raises(FileFault) as caught:
        say(asked, DECLINED, **{field: text})
    assert text not in str(caught.value)
    assert words(asked) == []


def test_a_plan_that_was_never_proposed_is_not_decided_on(asked):
    with pytest.raises(FileFault, match="not a plan that was proposed here"):
        say(asked, DECLINED)
    assert words(asked) == []


def test_the_operator_waits_for_a_node_at_work_but_not_without_end(asked):
    workspace, told = asked.workspace(), []
    held = workspace.lock()
    held.__enter__()

    def sleep(seconds):
        told.append(seconds)
        if len(told) == 3:
            held.__exit__(None, None, None)

    with patiently(workspace, seconds=10.0, elapsed=lambda: sum(told), sleep=sleep):
        assert len(told) == 3
        with (
            pytest.raises(WorkspaceBusy),
            patiently(workspace, seconds=0.3, elapsed=lambda: sum(told), sleep=told.append),
        ):
            pass
    assert 0.3 <= sum(told[3:]) < 0.5
