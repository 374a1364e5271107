"""The order of a match at a partner: paid before noise is drawn, disclosed before it leaves, within quotas, once."""

import dataclasses
import datetime

import pytest

from coterie.clients.matching import node as match_node
from coterie.clients.matchwire import Agree, Commit, Count, End, Give, Take
from coterie.clients.refusals import TaskRefused
from coterie.clients.workspace import Workspace
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.matching.channel import Address
from coterie.privacy.matching.commitment import commit
from coterie.privacy.matching.own import Own, new_secrets
from coterie.privacy.plan import Matching
from coterie.privacy.policy import read_policy
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import ConsentGiven, Refused, release_digest
from coterie.privacy.renyi import curve
from coterie.privacy.signed import sign
from coterie.server.rounds import StudyAborted
from coterie.tests.clients.federation import Federation, changed, today
from coterie.tests.clients.matching import (
    Matched,
    asking,
    counted,
    drawn,
    match_plan,
    sealed_anew,
    with_noise,
)
from coterie.tests.clients.summing import quick_folder


@pytest.fixture(scope="module")
def templates():
    """Federations of two partners that consented, by outcome; the counts with a spare attempt."""
    with quick_folder() as folder:
        found = {"": folder}
        for outcome in ("counts", "rows"):
            plan = match_plan(2, outcome, training__spare=1 if outcome == "counts" else 0)
            found[outcome] = Matched(folder / outcome, plan).consented()
        yield found


@pytest.fixture
def made(templates):
    """Returns a copy of a federation that consented."""
    copies = []

    def make(outcome):
        copies.append(outcome)
        number = sum(1 for _ in templates[""].iterdir())
        return templates[outcome].copied(templates[""] / f"copy-{number}")

    return make


def refused(federation, asked, code, name="amber"):
    """A question is refused with a word; nothing is written that costs anything."""
    before = federation.kinds(name)
    with pytest.raises(TaskRefused) as caught:
        federation.answer(name, asked)
    assert caught.value.code == code
    gained = federation.kinds(name)[len(before) :]
    assert set(gained) <= {"refusal", "lost"}
    return caught.value


class Stopped(BaseException):
    """Stands for the power that goes out: nobody catches it."""


def stopping(monkeypatch, name):
    """Make the node stop where a function of it is called."""

    def stop(*_, **__):
        raise Stopped(name)

    monkeypatch.setattr(match_node, name, stop)


# --- attempts -------------------------------------------------------------------------------------------------


def test_a_charge_is_durable_before_secrets_and_noise_are_drawn(made, monkeypatch):
    federation = made("counts")
    held = []

    def watched(*args, **kwargs):
        held.append([(r.charge.step, r.settled) for r in federation.reservations_now])
        return new_secrets(*args, **kwargs)

    monkeypatch.setattr(match_node, "new_secrets", watched)
    with federation.node("amber") as node:
        type(federation).reservations_now = property(lambda _: node.ledger.reservations())
        try:
            node.matches.answer(Commit(federation.digest, 1))
        finally:
            del type(federation).reservations_now
    assert held == [[("match/training", None), ("match/holdout", None)]]


@pytest.mark.parametrize("where", ["new_secrets", "make_list"])
def test_a_lost_attempt_stays_lost_and_a_spare_one_is_charged_in_full_with_new_noise(made, monkeypatch, where):
    federation = made("counts")
    with monkeypatch.context() as patched:
        stopping(patched, where)
        with pytest.raises(Stopped):
            federation.answer("amber", Commit(federation.digest, 1))
    refused(federation, Commit(federation.digest, 1), "lost")
    second = federation.answer("amber", Commit(federation.digest, 2))
    assert second.commitment.attempt == 2
    event = calibrate(federation.plan).overlap
    with Ledger(federation.workspace().ledger, federation.clock) as ledger:
        assert ledger.spent("training") == pytest.approx(curve([event, event]))
        assert ledger.spent("holdout") == pytest.approx(curve([event, event]))
    assert drawn(federation, "amber", federation.random, attempt=2) != drawn(
        federation, "amber", federation.random, attempt=1
    )
    refused(federation, Commit(federation.digest, 1), "lost")
    refused(federation, Commit(federation.digest, 3), "task")


def test_the_match_comes_to_its_end_with_the_second_attempt(made, monkeypatch):
    federation = made("counts")
    with monkeypatch.context() as patched:
        stopping(patched, "make_list")
        with pytest.raises(Stopped):
            federation.answer("birch", Commit(federation.digest, 1))
    progress = federation.run()
    attempts = {name: federation.reservations(name)[-1].charge.attempt for name in federation.names}
    assert attempts == {"amber": 1, "birch": 2}
    noise = {name: drawn(federation, name, federation.random, attempt=attempts[name]) for name in federation.names}
    cells = {frozenset(one["partners"]): one["customers"] for one in progress.overlap["cells"]}
    assert cells == with_noise(federation.cards, noise)


def test_an_attempt_that_was_lost_between_its_two_charges_has_a_spare_one(made, monkeypatch):
    federation = made("counts")
    reserve, calls = Ledger.reserve, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise Stopped("between")
        return reserve(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "reserve", once)
        with pytest.raises(Stopped):
            federation.answer("amber", Commit(federation.digest, 1))
    assert len(federation.reservations()) == 1
    refused(federation, Commit(federation.digest, 1), "lost")
    assert federation.answer("amber", Commit(federation.digest, 2)).commitment.attempt == 2
    assert len(federation.reservations()) == 3


def test_an_attempt_that_was_lost_between_its_two_settlements_gives_nothing(made, monkeypatch):
    federation = made("counts")
    settle, calls = Ledger.settle, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise Stopped("between")
        return settle(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "settle", once)
        with pytest.raises(Stopped):
            federation.answer("amber", Commit(federation.digest, 1))
    refused(federation, Commit(federation.digest, 1), "lost")
    assert federation.answer("amber", Commit(federation.digest, 2)).commitment.attempt == 2
    assert len(federation.reservations()) == 4


def test_an_attempt_that_was_answered_calls_for_no_other(made):
    federation = made("counts")
    first = federation.answer("amber", Commit(federation.digest, 1))
    refused(federation, Commit(federation.digest, 2), "task")
    assert federation.answer("amber", Commit(federation.digest, 1)) == first


def test_without_a_spare_attempt_a_lost_list_is_one_clear_end(made, templates, monkeypatch):
    federation = Matched(templates[""] / "no-spare", match_plan(2, "counts")).consented()
    with monkeypatch.context() as patched:
        stopping(patched, "make_list")
        with pytest.raises(Stopped):
            federation.answer("birch", Commit(federation.digest, 1))
    with pytest.raises(StudyAborted) as caught:
        federation.run()
    assert "birch" in str(caught.value)
    assert "amber" not in str(caught.value)
    assert federation.kinds("amber").count("manifest") == 0


@pytest.mark.parametrize("attempt", [0, -1, 3, 1000])
def test_an_attempt_that_the_plan_does_not_have_is_refused(made, attempt):
    refused(made("counts"), Commit(made("counts").digest, attempt), "task")


def test_a_list_is_not_made_where_the_budget_does_not_carry_both_groups(made):
    federation = made("counts")
    federation.policy("amber", budget__lifetime_epsilon=1.0)
    error = refused(federation, Commit(federation.digest, 1), "budget")
    assert error.faults
    assert federation.store("amber").load() is None
    assert federation.reservations() == ()


# --- disclosures ------------------------------------------------------------------------------------------------


def test_a_disclosure_is_in_the_ledger_before_the_commitment_leaves_and_after_the_list_is_kept(made, monkeypatch):
    federation = made("rows")
    record, seen = Ledger.record, []

    def watching(ledger, kind, body):
        if kind == "disclosure":
            seen.append((federation.store("amber").folder / "state").exists())
        return record(ledger, kind, body)

    monkeypatch.setattr(Ledger, "record", watching)
    answer = federation.answer("amber", Commit(federation.digest, 1))
    (entry,) = (e for e in federation.entries() if e.kind == "disclosure")
    assert entry.body["release"] == release_digest(answer)
    assert seen == [True]


def another(federation, **changes):
    """Another plan of the same partners, as its digest, after they consented to it."""
    signed = sign(changed(federation.plan, **changes), federation.coordinator)
    answers = [federation.propose(name, signed.to_bytes()) for name in federation.names]
    return signed.plan.digest(), answers


def test_disclosures_of_a_year_are_counted_over_plans(made):
    federation = made("rows")
    federation.policies(matching__disclosures=1)
    second, answers = another(federation, name="second")
    assert all(isinstance(answer, ConsentGiven) for answer in answers)
    federation.answer("amber", Commit(federation.digest, 1))
    refused(federation, Commit(second, 1), "quota")
    _, (amber, birch) = another(federation, name="third")
    assert (amber.codes, type(birch)) == (("quota",), ConsentGiven)
    # The plan that was disclosed goes on.
    assert federation.answer("amber", Commit(federation.digest, 1)).commitment.attempt == 1
    year = federation.clock().replace(year=2032)
    federation.clock = lambda: year
    fourth, (amber, _) = another(federation, name="fourth", expires=year.date())
    assert isinstance(amber, ConsentGiven)
    federation.answer("amber", Commit(fourth, 1))


def test_a_list_that_a_crash_left_unnamed_is_held_to_the_disclosures_of_the_year(made, monkeypatch):
    federation = made("rows")
    federation.policies(matching__disclosures=1)
    second, _ = another(federation, name="second")
    record = Ledger.record

    def dying(ledger, kind, body):
        if kind == "disclosure":
            raise Stopped(kind)
        return record(ledger, kind, body)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "record", dying)
        with pytest.raises(Stopped):
            federation.answer("amber", Commit(federation.digest, 1))
    federation.answer("amber", Commit(second, 1))
    refused(federation, Commit(federation.digest, 1), "quota")


# --- the quota, and one manifest --------------------------------------------------------------------------------


def test_evaluations_of_a_year_are_counted_over_plans_and_restarts(made):
    federation = made("rows")
    lead = federation.lead(asking(Agree))
    _, agree = lead.next
    asks = sum(one.size for one in agree.commitments if one.partner != "amber")
    federation.policy("amber", matching__evaluations=asks - 1)
    refused(federation, agree, "quota")
    assert federation.stands("amber").manifest == ()
    first = Address("birch", 0, 0)
    refused(federation, Give(federation.digest, first), "match")
    federation.policy("amber", matching__evaluations=2 * asks - 1)
    lead.on()
    assert federation.rows_at("amber") == federation.shared_at("amber")
    second = Matched.__new__(Matched)
    second.__dict__.update(federation.__dict__)
    second.digest, _ = another(federation, name="second")
    second.plan = changed(federation.plan, name="second")
    two = second.lead(asking(Agree))
    with pytest.raises(TaskRefused) as caught:
        two.on()
    assert caught.value.code == "quota"
    assert str(asks) in str(caught.value)
    federation.policy("amber", matching__evaluations=2 * asks)
    two.on()
    spent = [e.body["evaluations"] for e in federation.entries() if e.kind == "manifest"]
    assert spent == [asks, asks]


def test_the_quota_is_asked_once_for_a_manifest(made):
    federation = made("rows")
    lead = federation.lead(asking(Give))
    agree = next(asked for name, asked, _ in lead.said if isinstance(asked, Agree) and name == "amber")
    federation.policy("amber", matching__evaluations=0)
    assert federation.answer("amber", agree) == next(a for n, q, a in lead.said if (n, q) == ("amber", agree))
    assert federation.kinds().count("manifest") == 1


def other_list(federation, name):
    """A partner's second list: right in everything, and signed by it, under other secrets."""
    own = federation.own(name)
    fresh = Own(name, own.identity, own.terms, new_secrets(own.terms, OsSource().stream("")))
    points = federation.store(name).read("own", 32)
    return commit(fresh, points, attempt=1)


def test_a_second_manifest_is_refused_for_ever(made):
    federation = made("rows")
    lead = federation.lead(asking(Give))
    agree = next(asked for _, asked, _ in lead.said if isinstance(asked, Agree))
    mine, theirs = agree.commitments
    second = Agree(federation.digest, (mine, other_list(federation, "birch")))
    error = refused(federation, second, "match")
    assert "second manifest" in str(error)
    assert "second manifest" in federation.report()
    # Not even after the state of the first is gone.
    federation.store("amber").save(dataclasses.replace(federation.stands("amber"), manifest=(), legs=()))
    refused(federation, second, "match")
    federation.answer("amber", agree)
    lead.on()
    assert federation.rows_at("amber") == federation.shared_at("amber")
    assert theirs != second.commitments[1]


def test_a_partner_signs_no_second_list(made):
    federation = made("rows")
    first = federation.answer("amber", Commit(federation.digest, 1))
    again = federation.answer("amber", Commit(federation.digest, 1))
    assert again == first
    table = federation.tables["amber"].to_pydict()
    sealed_anew(federation, "amber", {name: column[1:] for name, column in table.items()})
    assert federation.answer("amber", Commit(federation.digest, 1)) == first


def wrong_manifests(federation, agree):
    """Lists of commitments that are not the plan's, each with words of what the partner notes about it."""
    mine, theirs = agree.commitments
    birch = federation.own("birch")
    stranger = Identity.create()

    def signed_by(identity, of=theirs, **changes):
        said = dataclasses.replace(of, **changes)
        signature = identity.sign(b"coterie/match/commitment/v1\n" + canonical(said.said)).hex()
        return dataclasses.replace(said, signature=signature)

    own = birch.identity
    yield "an invented partner", (mine, theirs, signed_by(stranger, partner="zebra")), "zebra"
    yield "one for another", (mine, signed_by(stranger)), "did not sign"
    yield "nobody else", (mine,), "no commitment of birch"
    yield "the other alone", (theirs,), "no commitment of amber"
    yield "none", (), "no commitment"
    yield "one twice", (mine, theirs, theirs), "two commitments"
    yield "a changed own one", (dataclasses.replace(mine, size=mine.size + 16), theirs), "amber"
    mine_too = signed_by(federation.own("amber").identity, mine, chunks=("ab" * 32,) * len(mine.chunks))
    yield "an own list that was not kept", (mine_too, theirs), "another commitment than this partner signed"
    yield "another plan's", (mine, signed_by(own, plan="sha256:" + "0" * 64)), "another plan"
    yield "other rules", (mine, signed_by(own, rules="0")), "another version of the rules"
    yield "a shorter list", (mine, signed_by(own, size=16 * (theirs.size // 16 - 100))), "points"
    yield "a list not padded", (mine, signed_by(own, size=theirs.size + 1)), "padded"
    yield "more chunks", (mine, signed_by(own, chunks=(*theirs.chunks, theirs.chunks[0]))), "chunks"
    yield "the own channel key", (mine, signed_by(own, channel=mine.channel)), "one channel key"
    yield "a channel key of small order", (mine, signed_by(own, channel="00" * 32)), "small order"


def test_lists_that_are_not_the_plans_are_refused_and_say_why_in_the_report_alone(made):
    federation = made("rows")
    lead = federation.lead(asking(Agree))
    _, agree = lead.next
    for what, commitments, words in wrong_manifests(federation, agree):
        if any(one.size < 1 for one in commitments):
            continue
        error = refused(federation, Agree(federation.digest, tuple(commitments)), "match")
        assert words in str(error), what
        assert words in federation.report(), what
    lead.on()
    assert federation.rows_at("amber") == federation.shared_at("amber")


def test_questions_out_of_their_order_are_refused(made):
    federation = made("counts")
    give, take = Give(federation.digest, Address("amber", 0, 0)), None
    for asked in (give, Count(federation.digest), End(federation.digest), Agree(federation.digest, ())):
        refused(federation, asked, "match")
    federation.answer("amber", Commit(federation.digest, 1))
    for asked in (give, Count(federation.digest), End(federation.digest)):
        refused(federation, asked, "match")
    lead = federation.lead(asking(Take))
    take = lead.next[1]
    refused(federation, take, "match")  # it is for birch
    for asked in (Count(federation.digest), End(federation.digest)):
        refused(federation, asked, "match")
    unknown = (("birch", 1, 0), ("amber", 0, 1), ("zebra", 0, 0), ("amber", 0, 0, "birch"))
    for address in (Address(*one) for one in unknown):
        refused(federation, Give(federation.digest, address), "match")
    lead.on()
    noise = {name: drawn(federation, name, federation.random) for name in federation.names}
    assert counted(lead.overlap) == with_noise(federation.cards, noise)


def test_only_the_teller_counts(made):
    federation = made("counts")
    federation.lead(asking(Count))
    refused(federation, Count(federation.digest), "task", "birch")


def test_the_teller_destroys_nothing_before_it_counted(made):
    federation = made("counts")
    lead = federation.lead(asking(Count))
    refused(federation, End(federation.digest), "match")
    lead.on()
    assert lead.overlap


# --- plans and policies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "codes"),
    [
        ({"matching": None}, ("matching",)),
        ({"matching__outcomes": ["rows", "tokens"]}, ("matching",)),
        ({"matching__identifiers": ["email"]}, ("matching",)),
        ({"matching__least": 11}, ("matching",)),
        ({"peers": {}}, ("peers",)),
    ],
    ids=["no-rules", "another-outcome", "another-identifier", "least-too-low", "nobody-pinned"],
)
def test_a_policy_refuses_the_match_that_it_does_not_permit(made, rules, codes):
    federation = made("counts")
    federation.policy("amber", **rules)
    answer = federation.propose("amber")
    assert isinstance(answer, Refused)
    assert answer.codes == codes
    refused(federation, Commit(federation.digest, 1), "no-consent")


def test_an_invented_partner_is_refused_where_the_plan_is_proposed(made):
    federation = made("counts")
    own, other = federation.plan.partners
    invented = dataclasses.replace(other, name="zebra", key=Identity.create().public)
    swapped = dataclasses.replace(other, key=Identity.create().public)
    for partners in ((own, other, invented), (own, swapped)):
        signed = sign(
            changed(federation.plan, partners=partners, privacy__threshold=len(partners)), federation.coordinator
        )
        answer = federation.propose("amber", signed.to_bytes())
        assert isinstance(answer, Refused)
        assert "peers" in answer.codes


def test_a_partner_without_identifiers_says_so_before_it_consents(made):
    federation = made("counts")
    federation.workspace().withdraw_identifiers()
    assert federation.propose().codes == ("identifiers",)
    refused(federation, Commit(federation.digest, 1), "no-consent")


def test_a_plan_that_matches_nothing_has_no_match(templates):
    federation = Federation(templates[""] / "trains")
    federation.propose()
    with federation.node() as node, pytest.raises(TaskRefused) as caught:
        node.matches.answer(Commit(federation.digest, 1))
    assert caught.value.code == "task"


def test_the_simulated_policy_permits_what_its_plan_asks_and_nothing_else(made):
    federation = made("counts")
    rules = read_policy(Workspace(federation.folders["amber"]).policy).matching
    asked: Matching = federation.plan.matching
    assert (rules.outcomes, rules.identifiers, rules.least) == ((asked.outcome,), (asked.identifier,), asked.least)


def test_questions_of_a_coordinator_end_where_the_plan_does(made):
    federation = made("rows")
    lead = federation.lead(asking(Give))
    after = today() + datetime.timedelta(days=365)
    federation.clock = lambda: after
    name, asked = lead.next
    with pytest.raises(TaskRefused) as caught:
        federation.answer(name, asked)
    assert caught.value.code == "expired"
