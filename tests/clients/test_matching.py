"""Matches over real messages and workspaces: what comes out is what plain sets say, and is charged or disclosed."""

import itertools
import math

import pytest

from coterie.clients.matchwire import Agree, Commit
from coterie.clients.refusals import TaskRefused
from coterie.clients.vault import MATCHES
from coterie.privacy.calibration import calibrate
from coterie.privacy.ledger import Ledger
from coterie.privacy.matching.overlap import Overlap
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import MatchCommitted, release_digest
from coterie.privacy.renyi import curve
from coterie.privacy.statement import statement
from coterie.tests.clients.federation import SEEDED
from coterie.tests.clients.matching import (
    Matched,
    asking,
    cells_of,
    counted,
    drawn,
    match_plan,
    questions,
    sealed_anew,
    with_noise,
)
from coterie.tests.clients.summing import quick_folder

PARTNERS = [2, 3, pytest.param(5, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def folder():
    with quick_folder() as found:
        yield found


@pytest.fixture
def made(folder, request):
    """Returns a federation of its own, in memory where there is some."""

    def make(count=3, outcome="counts", cards=None, **changes):
        name = f"{abs(hash(request.node.name)) % 10**8}-{sum(1 for _ in folder.iterdir())}"
        return Matched(folder / name, match_plan(count, outcome, **changes), cards)

    return make


@pytest.fixture(scope="module")
def finished(folder):
    """Matches of three partners that came to their end over Flower's messages."""
    found = {}
    for outcome in ("counts", "rows", "tokens"):
        federation = Matched(folder / f"finished-{outcome}", match_plan(3, outcome))
        found[outcome] = (federation, federation.run())
    return found


# --- what comes out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", PARTNERS)
def test_each_owner_learns_which_of_its_customers_each_other_has(made, count):
    federation = made(count, "rows")
    federation.run()
    for name in federation.names:
        assert federation.rows_at(name) == federation.shared_at(name)


@pytest.mark.parametrize("count", PARTNERS)
def test_equal_customers_have_equal_tokens_and_different_ones_have_different(made, count):
    federation = made(count, "tokens")
    federation.run()
    told = {name: federation.tokens_at(name) for name in federation.names}
    by_card: dict[str, bytes] = {}
    for name, tokens in told.items():
        assert set(tokens) == federation.cards[name]
        by_card |= tokens
    assert all(by_card[card] == token for tokens in told.values() for card, token in tokens.items())
    assert len(set(by_card.values())) == len(by_card)


@pytest.mark.parametrize("count", PARTNERS)
def test_counts_are_plain_sets_and_the_noise_that_every_partner_drew(made, count):
    federation = made(count, "counts", privacy__epsilon=0.5)  # a scale of 8: four numbers are never all without noise
    overlap = Overlap.from_dict(dict(federation.run().overlap))
    noise = {name: drawn(federation, name, SEEDED) for name in federation.names}
    expected, least = with_noise(federation.cards, noise), federation.plan.matching.least
    assert any(off for one in noise.values() for off in one.values()), "there was noise to be seen"
    assert counted(overlap) == {cell: number if number >= least else None for cell, number in expected.items()}
    totals = {name: sum(n for cell, n in expected.items() if name in cell) for name in federation.names}
    assert {one.partners[0]: one.customers for one in overlap.totals} == totals
    pairs = {pair: sum(n for cell, n in expected.items() if set(pair) <= cell) for pair in _pairs(federation.names)}
    assert {one.partners: one.customers for one in overlap.pairs} == pairs
    times = {str(k): sum(n for cell, n in expected.items() if len(cell) == k) for k in range(1, count + 1)}
    assert {one.partners[0]: one.customers for one in overlap.multiplicity} == {
        k: number if number >= least else None for k, number in times.items()
    }


def _pairs(names):
    return itertools.combinations(names, 2)


def test_a_count_below_the_least_is_not_told(made):
    cards = {name: {f"{name}{number}" for number in range(40)} for name in ("amber", "birch")}
    cards["birch"] |= {"amber1", "amber2"}
    federation = made(2, "counts", cards, matching__least=30)
    overlap = Overlap.from_dict(dict(federation.run().overlap))
    assert counted(overlap)[frozenset({"amber", "birch"})] is None
    assert all(n is not None for cell, n in counted(overlap).items() if len(cell) == 1)


def test_the_partner_whom_the_plan_names_counts_whatever_its_place_in_the_roster(made):
    for teller in ("birch", "cedar"):
        federation = made(3, "counts", matching__teller=teller)
        overlap = Overlap.from_dict(dict(federation.run().overlap))
        noise = {name: drawn(federation, name, SEEDED) for name in federation.names}
        assert counted(overlap) == with_noise(federation.cards, noise)
        told = [e for e in federation.entries(teller) if e.kind == "match" and e.body["what"] == "overlap-counts"]
        assert len(told) == 1


def test_customers_of_one_number_are_one_item_and_both_are_told(made):
    federation = made(2, "rows")
    shared = sorted(federation.cards["amber"] & federation.cards["birch"])[0]
    table = federation.tables["amber"].to_pydict()
    table["customer"].append("amber-again")
    table["loyalty"].append(f" {shared} ")
    sealed_anew(federation, "amber", table)
    federation.run()
    cards = dict(zip(table["customer"], table["loyalty"], strict=True))
    who = {name for name, card in cards.items() if card.strip() == shared}
    assert len(who) == 2
    assert who <= federation.customers_at("amber")["birch"]


def test_tokens_of_another_epoch_have_nothing_in_common(made):
    first, second = made(2, "tokens"), made(2, "tokens", matching__epoch=2)
    first.run()
    second.run()
    assert not set(first.tokens_at("amber").values()) & set(second.tokens_at("amber").values())


def test_lists_that_share_nobody_are_matched_too(made):
    cards = {name: {f"{name}{number}" for number in range(20)} for name in ("amber", "birch")}
    federation = made(2, "rows", cards)
    federation.run()
    assert federation.rows_at("amber") == {"birch": set()}
    assert federation.learned("amber") == 1


# --- what it costs ------------------------------------------------------------------------------------------


def test_both_groups_are_charged_once_and_for_the_list_that_left(finished):
    federation, _ = finished["counts"]
    event = calibrate(federation.plan).overlap
    for name in federation.names:
        held = federation.reservations(name)
        assert [r.charge.step for r in held] == ["match/training", "match/holdout"]
        assert {r.charge.group for r in held} == {"training", "holdout"}
        assert [(r.charge.event, r.charge.attempt) for r in held] == [(event, 1)] * 2
        (committed,) = {r.settled for r in held}
        assert committed
        with Ledger(federation.workspace(name).ledger, federation.clock) as ledger:
            assert ledger.spent("training") == pytest.approx(curve([event]))
            assert ledger.spent("holdout") == pytest.approx(curve([event]))


def test_a_disclosure_is_in_the_ledger_and_no_charge_is(finished):
    for outcome in ("rows", "tokens"):
        federation, progress = finished[outcome]
        for name in federation.names:
            kinds = federation.kinds(name)
            assert kinds.count("disclosure") == 1
            assert "reserve" not in kinds
            (entry,) = (e for e in federation.entries(name) if e.kind == "disclosure")
            about = {"outcome": outcome, "identifier": "loyalty", "partners": list(federation.names)}
            assert about.items() <= entry.body.items()
            assert kinds.index("disclosure") < kinds.index("manifest") < kinds.index("match")
        assert progress.receipts == ()


def test_counts_leave_receipts_that_are_true_to_the_ledgers(finished):
    federation, progress = finished["counts"]
    held = {(name, r.charge.step, 1, r.settled) for name in federation.names for r in federation.reservations(name)}
    told = {(r.partner, r.step, r.attempt, r.release) for r in progress.receipts}
    assert held < told
    ((teller, step, _, release),) = told - held
    assert (teller, step) == ("amber", "match/counts")
    assert release in {e.body["release"] for e in federation.entries("amber") if e.kind == "match"}


def test_a_source_that_is_no_secret_earns_no_epsilon(made):
    federation = made(2, "counts")
    federation.run()
    sources = {r.charge.random for r in federation.reservations("amber")}
    assert sources == {SEEDED.name}
    events = calibrate(federation.plan)
    said = {name: statement(federation.plan, events, random_source=name)["groups"] for name in (SEEDED.name, "os")}
    assert [group["epsilon"] for group in said[SEEDED.name]] == [None, None]
    assert all(0 < group["epsilon"] <= federation.plan.privacy.epsilon for group in said["os"])


def test_real_noise_is_as_large_as_the_plan_says(made):
    """Twelve matches of two partners with noise of the operating system; the bounds are far out in the tails."""
    federation = made(2, "counts", training__spare=0)
    terms_sigma = calibrate(federation.plan).overlap.sigma
    exact, offs = cells_of(federation.cards), []
    federation.consented()
    for number in range(12):
        one = federation.copied(federation.root.with_name(f"{federation.root.name}-{number}"))
        one.random = OsSource()
        found = counted(one.lead().overlap)
        offs += [found[cell] - exact[cell] for cell in exact]
        assert {r.charge.random for r in one.reservations("amber")} == {"os"}
    # Three cells of a match of two: each has the noise of both partners; squares over their expectation.
    expected = 2 * terms_sigma**2
    mean = sum(off * off for off in offs) / len(offs) / expected
    assert 0.15 < mean < 3.5
    assert len(set(offs)) > 3


# --- what there is once ---------------------------------------------------------------------------------------


def test_a_repeated_question_gets_the_same_answer(made):
    federation = made(2, "rows").consented()
    federation.random = OsSource()  # so that nothing is equal by itself
    going, answer = questions(federation), None
    name, asked = next(going)
    kinds = set()
    while True:
        answer = federation.answer(name, asked)
        again = federation.answer(name, asked)
        assert again == answer
        assert release_digest(again) == release_digest(answer)
        kinds.add(type(asked).__name__)
        try:
            name, asked = going.send(answer)
        except StopIteration:
            break
    assert kinds == {"Commit", "Agree", "Give", "Take", "End"}
    assert federation.rows_at("amber") == federation.shared_at("amber")


def test_a_second_run_of_a_finished_match_asks_for_nothing_more(finished):
    for outcome in ("counts", "rows", "tokens"):
        federation, progress = finished[outcome]
        before = {name: len(federation.everything(name)) for name in federation.names}
        again = federation.run()
        assert (again.matched, again.overlap) == (progress.matched, progress.overlap)
        assert {name: len(federation.everything(name)) for name in federation.names} == before


def test_a_finished_match_begins_no_second_time(made):
    federation = made(2, "tokens").consented()
    federation.lead()
    held = federation.tokens_at("amber")
    for asked in (Commit(federation.digest, 1), Agree(federation.digest, ())):
        with pytest.raises(TaskRefused) as caught:
            federation.answer("amber", asked)
        assert caught.value.code in {"task", "match"}
    assert federation.tokens_at("amber") == held


def test_what_was_found_is_sealed_in_the_vault_as_one_data_set(finished):
    for outcome in ("rows", "tokens"):
        federation, _ = finished[outcome]
        for name in federation.names:
            with federation.sealed(name, MATCHES) as table:
                assert table.rows > 0


def test_the_commitment_is_one_release_in_both_groups(made):
    federation = made(2, "counts").consented()
    lead = federation.lead(asking(Agree))
    for name, _, answer in lead.said:
        assert isinstance(answer, MatchCommitted)
        assert {r.settled for r in federation.reservations(name)} == {release_digest(answer)}


def test_sigma_is_the_least_that_keeps_the_budget():
    plan = match_plan(3, "counts")
    sigma = calibrate(plan).overlap.sigma
    # Gaussian noise on whole numbers: an independent bound from below, of the Gaussian mechanism's tail.
    assert 0.5 < sigma < math.sqrt(2 * math.log(1.25 / plan.privacy.delta)) / plan.privacy.epsilon * 1.2
    assert calibrate(match_plan(3, "counts", training__spare=2)).overlap.sigma > sigma
