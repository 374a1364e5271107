"""A ledger of version 1 is carried over whole or not at all, and every charge in it still counts."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.privacy import upgrade
from coterie.privacy.canonical import canonical
from coterie.privacy.charges import Charge, Limit
from coterie.privacy.checkpoint import read_note
from coterie.privacy.errors import BudgetExhausted, LedgerFault
from coterie.privacy.events import DiscreteGaussian, event_to_dict
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.merkle import check_consistency
from coterie.privacy.renyi import ORDERS, Filter

# The file of version 1 as it was made then.
SCHEMA = (
    """CREATE TABLE entries (
        seq  INTEGER PRIMARY KEY CHECK (seq > 0),
        at   TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('consent', 'refusal', 'reserve', 'settle', 'lost')),
        key  TEXT UNIQUE,
        body TEXT NOT NULL
    ) STRICT""",
    """CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_are_never_removed BEFORE DELETE ON entries
       BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    "PRAGMA user_version = 1",
)
SIGMAS = {"training": 20.0, "holdout": 7.0}
PLENTY = [Limit(Filter(90.0, 1e-5))]


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def reserve(study, step, group):
    event = DiscreteGaussian(SIGMAS[group], 1)
    body = {
        "plan": digest(study),
        "purpose": "coupons" if study == "one" else "churn",
        "step": step,
        "attempt": 1,
        "group": group,
        "event": event_to_dict(event),
        "curve": [order / (2 * SIGMAS[group] ** 2) for order in ORDERS],
        "random": "os",
    }
    return "reserve", f"{body['plan']}/{step}/1", body


def history(studies=("one", "two"), rounds=3):
    """Kind, key and body of each entry: consents and refusals, and charges settled, lost and open."""
    made = [("refusal", None, {"release": "", "plan": "", "codes": ["signature"]})]
    for study in studies:
        made.append(("consent", None, {"release": digest(study + " yes"), "plan": digest(study), "name": study}))
        for number in range(rounds):
            for group in SIGMAS:
                made.append(reserve(study, f"{group}/{number}", group))
                seq = len(made)
                if number == 1 and group == "holdout":
                    made.append(("lost", f"settle/{seq}", {"reserve": seq}))
                elif (study, number, group) != (studies[-1], rounds - 1, "holdout"):
                    made.append(("settle", f"settle/{seq}", {"reserve": seq, "release": digest(f"{study}/{seq}")}))
    return made


def write(path, made):
    """Write a file of version 1; the years go on from 2027 to 2029."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    for statement in SCHEMA:
        db.execute(statement)
    db.execute("BEGIN")
    for seq, (kind, key, body) in enumerate(made, start=1):
        at = f"{2027 + 3 * (seq - 1) // len(made)}-05-06T07:08:09.{seq:06d}+00:00"
        text = body if isinstance(body, str) else canonical(body).decode()
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (seq, at, kind, key, text))
    db.execute("COMMIT")
    db.close()


def rows_of(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT seq, at, kind, key, body FROM entries ORDER BY seq").fetchall()
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return version, rows


def mth(leaves):
    """RFC 9162, section 2.1.1."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def leaves_of(path):
    """The documented form of each leaf, written by hand: keys in order, the body as it is stored."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT seq, at, kind, body, salt FROM entries ORDER BY seq").fetchall()
    db.close()
    return [leaf(*row) for row in rows]


def leaf(seq, at, kind, body, salt):
    text = f'{{"at":"{at}","body":{body},"kind":"{kind}","salt":"{salt}","seq":{seq}}}'
    return hashlib.sha256(b"\x00coterie/entry/v2\n" + text.encode()).digest()


@pytest.fixture
def path(tmp_path):
    """A ledger of version 1."""
    path = tmp_path / "ledger.sqlite"
    write(path, history())
    return path


def test_every_entry_is_carried_over_as_it_was(path, clock):
    _, before = rows_of(path)
    with Ledger(path, clock) as ledger:
        assert [(e.seq, e.at, e.kind) for e in ledger.entries()] == [row[:3] for row in before]
        assert [r.lost for r in ledger.reservations()].count(True) == 2
        assert [r.seq for r in ledger.reservations() if r.settled is None and not r.lost] == [before[-1][0]]
    assert rows_of(path) == (2, before)


def test_the_tree_over_the_carried_entries_is_the_definitions(path, clock):
    _, before = rows_of(path)
    identity = Identity.create()
    with Ledger(path, clock) as ledger:
        leaves = leaves_of(path)
        assert [ledger.root(size) for size in range(1, len(before) + 1)] == [
            mth(leaves[:size]) for size in range(1, len(before) + 1)
        ]
        size, root = ledger.size, ledger.root(ledger.size)
        ledger.record("refusal", {"release": "", "plan": "", "codes": []})
        after, _ = read_note(ledger.checkpoint(identity), partner=identity.public)
        check_consistency((size, root), (after.size, after.root), ledger.proof_since(size, after.size))


def test_everything_that_was_charged_still_counts_in_every_span(path, clock):
    _, before = rows_of(path)
    charged = [(row[1][:4], json.loads(row[4])) for row in before if row[2] == "reserve"]
    with Ledger(path, clock) as ledger:
        for group, sigma in SIGMAS.items():
            spans = {
                "life": len([1 for _, body in charged if body["group"] == group]),
                **{
                    f"purpose/{p}": len([1 for _, b in charged if (b["group"], b["purpose"]) == (group, p)])
                    for p in ("coupons", "churn")
                },
                **{
                    f"year/{year}": len([1 for y, b in charged if (b["group"], y) == (group, str(year))])
                    for year in range(2026, 2031)
                },
            }
            assert sum(spans.values()) == 3 * spans["life"] == 18
            for span, count in spans.items():
                expected = [count * order / (2 * sigma**2) for order in ORDERS]
                assert ledger.spent_in(span, group, ()) == pytest.approx(expected, rel=1e-12)


def test_work_goes_on_where_it_was(path, clock):
    _, before = rows_of(path)
    with Ledger(path, clock) as ledger:
        assert [r.seq for r in ledger.recover()] == [before[-1][0]]
        assert ledger.recover() == ()
        assert all(ledger.paid_for(json.loads(row[4])["release"]) for row in before if row[2] in {"consent", "settle"})
        event = DiscreteGaussian(SIGMAS["training"], 1)
        known = Charge(digest("one"), "coupons", "training/0", 1, "training", event, "os")
        with pytest.raises(LedgerFault, match="already"):
            ledger.reserve(known, PLENTY, declared=99)
        with pytest.raises(BudgetExhausted, match="declared 3"):
            ledger.reserve(
                Charge(digest("one"), "coupons", "training/x", 1, "training", event, "os"), PLENTY, declared=3
            )
        ledger.reserve(Charge(digest("one"), "coupons", "training/x", 1, "training", event, "os"), PLENTY, declared=4)
    raw = sqlite3.connect(path)
    for statement in ("UPDATE entries SET body = '{}'", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


def test_an_empty_ledger_is_carried_over_too(tmp_path, clock):
    path = tmp_path / "ledger.sqlite"
    write(path, [])
    with Ledger(path, clock) as ledger:
        assert (ledger.size, ledger.root(0)) == (0, hashlib.sha256().digest())
    assert rows_of(path) == (2, [])


class Stopped(Exception):
    """The process is told to stop."""


@pytest.mark.parametrize("place", [1, 2, 13, len(history())])
def test_an_interrupted_upgrade_leaves_version_1_and_is_done_the_next_time(path, clock, monkeypatch, place):
    before, carry = rows_of(path), upgrade._carry

    def stopped(db, row):
        carry(db, row)
        if row[0] == place:
            raise Stopped

    monkeypatch.setattr(upgrade, "_carry", stopped)
    with pytest.raises(Stopped):
        Ledger(path, clock)
    assert rows_of(path) == before
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("DELETE FROM entries")
    assert [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == ["entries"]
    raw.close()
    monkeypatch.undo()
    with Ledger(path, clock) as ledger:
        assert ledger.size == len(before[1])


HARM = {
    "an entry that is gone": ("DELETE FROM entries WHERE seq = 4", "entry 4"),
    "a first entry that is gone": ("DELETE FROM entries WHERE seq = 1", "entry 1"),
    "no JSON": ("UPDATE entries SET body = 'canary-4711' WHERE seq = 2", "entry 2"),
    "no object": ("UPDATE entries SET body = '[4711]' WHERE seq = 2", "entry 2"),
    "a number that JSON does not know": ("UPDATE entries SET body = '{\"x\":NaN}' WHERE seq = 2", "entry 2"),
    "no event": ("UPDATE entries SET body = json_remove(body, '$.event') WHERE seq = 3", "entry 3"),
    "an event of no kind": ("UPDATE entries SET body = json_set(body, '$.event.kind', '4711') WHERE seq = 3", "event"),
    "a settlement of nothing": ("UPDATE entries SET body = '{}' WHERE seq = 4", "entry 4"),
    "a settlement of 4711": ('UPDATE entries SET body = \'{"reserve":"4711"}\' WHERE seq = 4', "entry 4"),
}


@pytest.mark.parametrize("name", HARM)
def test_a_damaged_ledger_is_one_fault_and_is_left_as_it_was(path, clock, name):
    statement, place = HARM[name]
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("DROP TRIGGER entries_are_never_changed")
    raw.execute("DROP TRIGGER entries_are_never_removed")
    raw.execute(statement)
    for trigger in SCHEMA[1:3]:
        raw.execute(trigger)
    raw.close()
    before = rows_of(path)
    with pytest.raises(LedgerFault) as caught:
        Ledger(path, clock)
    assert place in caught.value.faults[0].place
    assert "4711" not in str(caught.value)
    assert rows_of(path) == before


# --- processes ----------------------------------------------------------------------------------------------------


def child(role, folder, *numbers):
    script = Path(__file__).with_name("ledger_children.py")
    command = [sys.executable, str(script), role, str(folder), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("kills", "seed"), [(40, 1), pytest.param(400, 2, marks=pytest.mark.slow)])
def test_no_kill_leaves_a_ledger_half_carried_over(tmp_path, kills, seed):
    write(tmp_path / "ledger.sqlite", history(rounds=40))
    told = child("upgrading", tmp_path, kills, seed)
    assert told["wrong"] == []
    assert set(told["versions"]) == {1, 2}


def test_processes_that_open_it_at_once_find_it_carried_over_once(tmp_path):
    made = history(rounds=40)
    write(tmp_path / "ledger.sqlite", made)
    told = child("together", tmp_path, 5, 0)
    root_then = mth(leaves_of(tmp_path / "ledger.sqlite")).hex()
    spent = 80 * ORDERS[0] / (2 * SIGMAS["training"] ** 2)
    for size, root, first in told:
        assert (size, root) == (len(made), root_then)
        assert first == pytest.approx(spent)
