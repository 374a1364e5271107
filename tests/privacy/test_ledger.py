"""The ledger: append-only, charged before released, and never overspent, whatever kills it."""

import dataclasses
import datetime
import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.privacy.charges import Charge, Limit
from coterie.privacy.errors import BudgetExhausted, LedgerFault
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.renyi import Filter, curve, total

EVENT = PoissonGaussian(20.0, 0.1, 10)
PLENTY = [Limit(Filter(50.0, 1e-5))]


def charge(step="train/1", attempt=1, **fields):
    whole = {
        "plan": "sha256:p",
        "purpose": "campaign",
        "step": step,
        "attempt": attempt,
        "group": "training",
        "event": EVENT,
        "random": "os",
    }
    return Charge(**{**whole, **fields})


def cap(runs, event=EVENT):
    """Return a filter that carries exactly `runs` charges of this event."""
    low, high = 1e-3, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        few = Filter(middle, 1e-5).runs_left(curve([]), curve([event])) < runs
        low, high = (middle, high) if few else (low, middle)
    return Filter(high, 1e-5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path, clock):
    Ledger.create(path)
    with Ledger(path, clock) as opened:
        yield opened


def reopened(path, clock):
    return Ledger(path, clock)


def written(ledger):
    return [(entry.seq, entry.kind) for entry in ledger.entries()]


# --- the account ----------------------------------------------------------------------------------------


def test_a_charge_comes_back_as_it_was_made(ledger, path, clock):
    asked = [charge(), charge("train/2", 3), charge("evaluate/2", group="holdout", event=DiscreteGaussian(5.28, 1))]
    for one in asked:
        ledger.reserve(one, PLENTY, declared=9)
    with reopened(path, clock) as again:
        assert [r.charge for r in again.reservations()] == asked
        assert all(r.settled is None and not r.lost for r in again.reservations())


def refusal(digit):
    return {"release": f"sha256:{digit * 64}", "plan": "", "codes": ["signature"]}


def test_what_no_export_could_let_leave_is_not_written(ledger):
    for body in ({"release": "", "plan": "", "codes": ["of its own"]}, refusal("c") | {"rows": 7}):
        with pytest.raises(LedgerFault):
            ledger.record("refusal", body)
    assert ledger.size == 0


def test_entries_are_numbered_from_one_dated_and_in_order(ledger):
    ledger.record("refusal", refusal("c"))
    first = ledger.reserve(charge(), PLENTY, declared=9)
    ledger.settle(first, "sha256:r")
    ledger.record("refusal", refusal("d"))
    entries = list(ledger.entries())
    assert [(e.seq, e.kind) for e in entries] == [(1, "refusal"), (2, "reserve"), (3, "settle"), (4, "refusal")]
    assert {datetime.datetime.fromisoformat(e.at) for e in entries} == {
        datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    }
    assert entries[2].body == {"reserve": 2, "release": "sha256:r"}


def test_entries_hold_events_and_never_an_epsilon_or_what_follows_from_events(ledger):
    ledger.reserve(charge(), PLENTY, declared=9)
    (entry,) = ledger.entries()
    assert entry.body["event"] == {"kind": EVENT.kind, **dataclasses.asdict(EVENT)}
    assert not {"epsilon", "curve"} & set(entry.body)
    assert "epsilon" not in json.dumps(dict(entry.body))


def test_settled_and_recorded_releases_are_paid_for_and_no_others(ledger):
    ledger.settle(ledger.reserve(charge(), PLENTY, declared=9), "sha256:r")
    no = ledger.record("refusal", refusal("c")).body["release"]
    model = {"plan": f"sha256:{'1' * 64}", "model": f"sha256:{'2' * 64}", "record": f"sha256:{'3' * 64}"}
    received = ledger.record("model", model | {"release": f"sha256:{'4' * 64}"}).body["release"]
    ledger.reserve(charge("train/2"), PLENTY, declared=9)
    assert all(ledger.paid_for(digest) for digest in ("sha256:r", no, received))
    assert not any(ledger.paid_for(digest) for digest in ("", "sha256:x", "sha256:p", "training", "sha256:"))


def test_everything_reserved_is_spent_by_group_and_purpose_settled_or_not(ledger):
    histogram = DiscreteGaussian(7.0, 1)
    ledger.settle(ledger.reserve(charge(), PLENTY, declared=9), "sha256:r")
    ledger.reserve(charge("train/2"), PLENTY, declared=9)
    ledger.reserve(charge(plan="sha256:q", purpose="churn"), PLENTY, declared=9)
    ledger.reserve(charge("evaluate/1", group="holdout", event=histogram), PLENTY, declared=9)
    assert ledger.spent("training") == pytest.approx(total([curve([EVENT])] * 3))
    assert ledger.spent("training", "campaign") == pytest.approx(total([curve([EVENT])] * 2))
    assert ledger.spent("training", "churn") == pytest.approx(curve([EVENT]))
    assert ledger.spent("holdout") == pytest.approx(curve([histogram]))
    assert ledger.spent("nobody") == curve([])


def test_a_reservation_settles_once(ledger):
    held = ledger.reserve(charge(), PLENTY, declared=9)
    ledger.settle(held, "sha256:r")
    with pytest.raises(LedgerFault):
        ledger.settle(held, "sha256:s")
    assert not ledger.paid_for("sha256:s")
    assert ledger.reservations()[0].settled == "sha256:r"


def test_what_a_crash_left_is_lost_once_and_stays_spent(ledger, path, clock):
    ledger.settle(ledger.reserve(charge(), PLENTY, declared=9), "sha256:r")
    held = ledger.reserve(charge("train/2"), PLENTY, declared=9)
    spent = ledger.spent("training")
    with reopened(path, clock) as again:
        assert [r.seq for r in again.recover()] == [held.seq]
        assert again.recover() == ()
        assert [r.lost for r in again.reservations()] == [False, True]
        assert again.spent("training") == spent
        with pytest.raises(LedgerFault):
            again.settle(held, "sha256:late")
        assert not again.paid_for("sha256:late")
        again.reserve(charge("train/2", attempt=2), PLENTY, declared=9)


# --- refusals -------------------------------------------------------------------------------------------


def test_a_charge_is_made_once(ledger):
    ledger.reserve(charge(), PLENTY, declared=9)
    before = written(ledger)
    with pytest.raises(LedgerFault, match="already"):
        ledger.reserve(charge(), PLENTY, declared=9)
    assert written(ledger) == before
    for other in (charge("train/2"), charge(attempt=2), charge(plan="sha256:q")):
        ledger.reserve(other, PLENTY, declared=9)


@pytest.mark.parametrize("runs", [1, 3])
def test_a_charge_beyond_a_budget_is_refused_and_not_written(ledger, runs):
    limits = [Limit(cap(runs))]
    for step in range(runs):
        ledger.reserve(charge(f"train/{step}"), limits, declared=9)
    before = written(ledger)
    with pytest.raises(BudgetExhausted) as caught:
        ledger.reserve(charge("train/9"), limits, declared=9)
    (fault,) = caught.value.faults
    assert fault.place == "lifetime budget"
    assert "0 more releases like this" in fault.rule
    assert f"of {limits[0].budget.epsilon:.3g}" in fault.rule
    assert "training" in fault.rule
    assert fault.fix
    assert written(ledger) == before


def test_every_limit_must_hold_and_the_one_that_does_not_is_named(ledger):
    limits = [Limit(cap(3)), Limit(cap(1), purpose="campaign")]
    ledger.reserve(charge(), limits, declared=9)
    with pytest.raises(BudgetExhausted, match="budget of purpose campaign"):
        ledger.reserve(charge("train/2"), limits, declared=9)
    other = [Limit(cap(3)), Limit(cap(1), purpose="churn")]
    ledger.reserve(charge(plan="sha256:q", purpose="churn"), other, declared=9)
    ledger.reserve(charge(plan="sha256:q", step="x", purpose="else"), limits[:1], declared=9)
    with pytest.raises(BudgetExhausted, match="lifetime budget"):
        ledger.reserve(charge(plan="sha256:s", purpose="else"), limits[:1], declared=9)


def test_groups_have_a_budget_each(ledger):
    limits = [Limit(cap(1))]
    ledger.reserve(charge(), limits, declared=9)
    ledger.reserve(charge("b", group="holdout"), limits, declared=9)
    with pytest.raises(BudgetExhausted):
        ledger.reserve(charge("c", group="holdout"), limits, declared=9)


def test_a_study_stays_within_the_composition_that_it_declared(ledger):
    for step in range(2):
        ledger.reserve(charge(f"train/{step}"), PLENTY, declared=2)
    before = written(ledger)
    with pytest.raises(BudgetExhausted, match="declared 2 releases"):
        ledger.reserve(charge("train/9"), PLENTY, declared=2)
    assert written(ledger) == before
    ledger.reserve(charge(plan="sha256:q"), PLENTY, declared=2)
    ledger.reserve(charge("e", group="holdout"), PLENTY, declared=2)


@pytest.mark.parametrize(
    "event",
    [
        PoissonGaussian(20.001, 0.1, 10),
        PoissonGaussian(20.0, 0.05, 10),
        PoissonGaussian(20.0, 0.1, 9),
        DiscreteGaussian(90.0, 1),
    ],
)
def test_a_study_cannot_change_its_event_on_the_way(ledger, event):
    ledger.reserve(charge(), PLENTY, declared=9)
    before = written(ledger)
    with pytest.raises(BudgetExhausted, match="the study's budget"):
        ledger.reserve(charge("train/2", event=event), PLENTY, declared=9)
    assert written(ledger) == before


def test_asking_whether_a_charge_fits_writes_nothing_and_answers_as_reserve_does(ledger):
    limits = [Limit(cap(1))]
    ledger.would_carry(charge(), limits, declared=9)
    assert written(ledger) == []
    ledger.reserve(charge(), limits, declared=9)
    with pytest.raises(BudgetExhausted):
        ledger.would_carry(charge("train/2"), limits, declared=9)


# --- the file -------------------------------------------------------------------------------------------


def test_nothing_is_ever_changed_or_removed_even_by_hand(ledger, path):
    ledger.settle(ledger.reserve(charge(), PLENTY, declared=9), "sha256:r")
    before = list(ledger.entries())
    raw = sqlite3.connect(path)
    for statement in (
        "UPDATE entries SET body = '{}'",
        "UPDATE entries SET seq = 9 WHERE seq = 1",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE seq = 2",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()
    assert list(ledger.entries()) == before


def test_a_commit_is_on_disk_before_it_is_acknowledged(ledger):
    # In WAL mode anything below FULL may lose acknowledged commits with the power.
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_reservation_is_seen_by_others_as_soon_as_it_returns(ledger, path):
    ledger.reserve(charge(), PLENTY, declared=9)
    assert not ledger._db.in_transaction
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT count(*) FROM entries WHERE kind = 'reserve'").fetchone() == (1,)
    raw.close()


def test_every_file_of_the_ledger_is_its_owner_s_alone(ledger, path):
    ledger.reserve(charge(), PLENTY, declared=9)
    files = sorted(file.name for file in path.parent.iterdir() if file.name.startswith("ledger"))
    assert files == ["ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal"]
    assert {stat.S_IMODE((path.parent / name).stat().st_mode) for name in files} == {0o600}


def damage(path, *statements):
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("DROP TRIGGER entries_are_never_changed")
    raw.execute("DROP TRIGGER entries_are_never_removed")
    for statement in statements:
        raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("DELETE FROM entries WHERE seq = 1", "entry 1"),
        ("DELETE FROM entries WHERE seq = 2", "entry 2"),
        ("UPDATE entries SET seq = 9 WHERE seq = 4", "entry 4"),
        ("UPDATE entries SET body = 'canary-4711' WHERE seq = 3", "entry 3"),
        ("UPDATE entries SET body = '[4711]' WHERE seq = 2", "entry 2"),
        ("UPDATE entries SET body = '{}' WHERE seq = 1", "entry 1"),
        ("UPDATE entries SET body = json_set(body, '$.event', 4711) WHERE seq = 1", "entry 1"),
        ("UPDATE entries SET body = json_set(body, '$.event.steps', 0) WHERE seq = 1", "event"),
        ("UPDATE entries SET body = json_set(body, '$.event.kind', 'canary-4711') WHERE seq = 1", "event"),
        ("UPDATE entries SET body = json_set(body, '$.attempt', 'canary-4711') WHERE seq = 1", "entry 1"),
        ("UPDATE entries SET body = json_remove(body, '$.group') WHERE seq = 3", "entry 3"),
    ],
)
def test_a_ledger_with_a_missing_or_damaged_entry_is_not_believed(ledger, path, statement, place):
    for step in range(2):
        ledger.settle(ledger.reserve(charge(f"train/{step}"), PLENTY, declared=9), f"sha256:{step}")
    damage(path, statement)
    spent = ledger.spent("training")
    with pytest.raises(LedgerFault) as caught:
        ledger.reservations()
    assert place in caught.value.faults[0].place
    assert caught.value.faults[0].fix
    assert "4711" not in str(caught.value)
    # What is charged is kept beside the entries: damage to them gives nothing back.
    assert ledger.spent("training") == spent == pytest.approx(total([curve([EVENT])] * 2))


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE entries SET body = 'canary-4711' WHERE seq = 1", ""),
        ("UPDATE entries SET body = '{}' WHERE seq = 1", "entry 1"),
        ("UPDATE entries SET body = json_set(body, '$.event.steps', 0) WHERE seq = 3", "event"),
        ("UPDATE entries SET body = json_remove(body, '$.group') WHERE seq = 3", "entry 3"),
    ],
)
def test_a_study_whose_own_entries_are_damaged_is_charged_nothing_more(ledger, path, statement, place):
    for step in range(2):
        ledger.settle(ledger.reserve(charge(f"train/{step}"), PLENTY, declared=9), f"sha256:{step}")
    damage(path, statement)
    with pytest.raises(LedgerFault) as caught:
        ledger.reserve(charge("x"), PLENTY, declared=9)
    assert place in caught.value.faults[0].place
    assert "4711" not in str(caught.value)
    assert ledger.size == 4


def test_a_damaged_settlement_is_met_when_the_studys_answers_are_looked_up(ledger, path):
    ledger.settle(ledger.reserve(charge(), PLENTY, declared=9), "sha256:0")
    damage(path, "UPDATE entries SET body = '{}' WHERE seq = 2")
    with pytest.raises(LedgerFault, match="entry 2: names no release"):
        ledger.charges_of(charge().plan)


@pytest.mark.parametrize("gone", range(1, 8))
def test_an_open_reservation_that_is_gone_is_a_fault_and_not_written_off(ledger, path, gone):
    for step in range(7):
        ledger.reserve(charge(f"train/{step}"), PLENTY, declared=99)
    damage(path, f"DELETE FROM entries WHERE seq = {gone}")  # noqa: S608 - a number of ours
    with pytest.raises(LedgerFault, match=f"entry {gone}: is missing"):
        ledger.recover()
    if gone in {4, 6, 7}:  # the perfect sub-trees of seven leaves end there
        with pytest.raises(LedgerFault, match=f"entry {gone}: is missing"):
            ledger.root(7)


@pytest.mark.parametrize("content", [b"canary-4711 is not a database" * 100, b"SQLite format 3\0" + bytes(4000)])
def test_what_is_not_a_database_is_a_fault_that_names_the_file(path, clock, content):
    path.write_bytes(content)
    with pytest.raises(LedgerFault) as caught:
        Ledger(path, clock)
    assert caught.value.faults[0].place == str(path)
    assert "4711" not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", [3, 99])
def test_a_ledger_of_another_version_is_left_as_it_is(path, clock, version):
    Ledger.create(path)
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {version}")
    raw.close()
    with pytest.raises(LedgerFault, match=f"format {version}"):
        Ledger(path, clock)


def test_another_program_s_database_is_left_as_it_is(path, clock):
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    with pytest.raises(LedgerFault, match="not a ledger"):
        Ledger(path, clock)
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    raw.close()


def test_a_ledger_that_has_vanished_or_was_emptied_is_not_begun_anew(path, clock):
    with pytest.raises(LedgerFault, match="is missing"):
        Ledger(path, clock)
    assert not path.exists()
    Ledger.create(path)
    path.write_bytes(b"")
    with pytest.raises(LedgerFault, match="not a ledger"):
        Ledger(path, clock)


def test_a_ledger_held_by_another_process_is_not_to_be_restored(ledger, path):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger._db.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(LedgerFault, match="SQLITE_BUSY") as caught:
        ledger.reserve(charge(), PLENTY, declared=9)
    assert "wait" in caught.value.faults[0].fix
    other.close()
    assert written(ledger) == []
    ledger.reserve(charge(), PLENTY, declared=9)


def test_a_ledger_is_made_once_whole_and_for_its_owner_alone(path, clock, monkeypatch):
    modes, real = [], os.link

    def link(source, target):
        # Nothing stands at its place before it is ready.
        assert not path.exists()
        modes.append(stat.S_IMODE(Path(source).stat().st_mode))
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    Ledger.create(path)
    assert modes == [0o600]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Ledger(path, clock) as ledger:
        ledger.reserve(charge(), PLENTY, declared=9)
    kept = path.read_bytes()
    with pytest.raises(LedgerFault, match="exists"):
        Ledger.create(path)
    assert path.read_bytes() == kept


def test_a_ledger_whose_rights_were_widened_is_narrowed_again(path, clock):
    Ledger.create(path)
    path.chmod(0o644)
    with Ledger(path, clock) as ledger:
        ledger.reserve(charge(), PLENTY, declared=9)
        files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_ledger_that_cannot_be_made_or_opened_is_a_fault_that_names_it(tmp_path, clock):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "ledger.sqlite", tmp_path / "file" / "ledger.sqlite", tmp_path / "folder"):
        for attempt in (Ledger.create, lambda place: Ledger(place, clock)):
            with pytest.raises(LedgerFault) as caught:
                attempt(path)
            assert caught.value.faults[0].place == str(path)


def test_a_ledger_without_room_says_so_and_stays_intact(ledger, path, clock):
    ledger.reserve(charge("first"), PLENTY, declared=10**6)
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    granted, caught = 1, None
    while caught is None:
        before = list(ledger.entries())
        try:
            ledger.reserve(charge(f"train/{granted}"), PLENTY, declared=10**6)
            granted += 1
        except LedgerFault as error:
            caught = error
    (fault,) = caught.faults
    assert fault.place == str(path)
    assert "free some space" in fault.fix
    assert list(ledger.entries()) == before
    with reopened(path, clock) as again:
        assert len(again.reservations()) == granted > 1
        again.reserve(charge("after"), PLENTY, declared=10**6)
        assert again._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- processes ------------------------------------------------------------------------------------------


def child(role, folder, *numbers):
    script = Path(__file__).with_name("ledger_children.py")
    command = [sys.executable, str(script), role, str(folder), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(60, 1), pytest.param(600, 2, marks=pytest.mark.slow), pytest.param(600, 3, marks=pytest.mark.slow)],
)
def test_no_kill_leaves_a_release_uncharged_or_the_ledger_damaged(tmp_path, kills, seed):
    told = child("killing", tmp_path, kills, seed)
    assert told["wrong"] == []
    # The kills struck where they should: after releases, and between a reservation and its settlement.
    assert told["released"] > kills
    assert told["left_open"] > 0


def test_processes_that_reserve_at_once_are_granted_exactly_the_cap(tmp_path):
    told = child("racing", tmp_path, 8, 6, 21)
    assert told["errors"] == []
    assert told["granted"] == told["charged"] == 21
    assert told["winners"] >= 4


def test_a_full_disk_refuses_the_charge_and_loses_nothing(tmp_path):
    told = child("full_disk", tmp_path)
    assert told["granted"] > 5
    assert told["before"] == told["granted"]
    assert told["after"] == told["granted"] + 1
    assert told["place"] == str(tmp_path / "ledger.sqlite")
    assert "free some space" in told["fix"]
    assert told["wrong"] == []
