"""Sealed counts: exact, for the partner's own eyes; outside there is a commitment that hides them and binds to them."""

import hashlib
import itertools
import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.clients.export import export_bundle
from coterie.clients.keeping import Keeping, Record, check
from coterie.clients.refusals import TaskRefused
from coterie.privacy.charges import Charge
from coterie.privacy.errors import FileFault, LedgerFault
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.ledger import Ledger
from coterie.tests.clients.federation import table_of, today

PLAN = "sha256:" + "ab" * 32
ABOUT = {"plan": PLAN, "purpose": "coupons", "step": "train/3", "attempt": "1"}
COUNTS = {"rows": 4711, "customers": 4242, "age: clipped": 17}
KEY = bytes(range(32))


@pytest.fixture
def keeping(tmp_path):
    (tmp_path / "workspace").mkdir()
    return Keeping(tmp_path / "workspace" / "counts", KEY)


def files(tmp_path):
    return sorted(path for path in (tmp_path / "workspace" / "counts").rglob("*") if path.is_file())


def test_what_was_kept_comes_back_and_holds_its_commitment(keeping):
    commitment = keeping.keep(ABOUT, COUNTS)
    (record,) = keeping.read_all()
    assert (record.about, record.counts) == (ABOUT, COUNTS)
    assert check(json.loads(json.dumps(record.to_dict()))) == commitment == record.commitment


def test_the_commitment_is_what_its_description_says(keeping):
    commitment = keeping.keep(ABOUT, COUNTS)
    (record,) = keeping.read_all()
    # Keys of all these tables are ASCII, so that Python's own sorted JSON is canonical.
    plain = json.dumps(record.to_dict(), sort_keys=True, separators=(",", ":")).encode()
    assert commitment == "sha256:" + hashlib.sha256(b"coterie/counts/v1\n" + plain).hexdigest()
    assert len(bytes.fromhex(record.salt)) == 32


def test_equal_counts_have_commitments_that_cannot_be_told_from_others(keeping):
    made = {keeping.keep(ABOUT, COUNTS) for _ in range(30)}
    assert len(made) == 30
    assert len({record.salt for record in keeping.read_all()}) == 30


CHANGES = {
    "a count": {"counts": {**COUNTS, "rows": 4712}},
    "a count more": {"counts": {**COUNTS, "erased": 0}},
    "a count less": {"counts": {"rows": 4711, "customers": 4242}},
    "the step": {"about": {**ABOUT, "step": "train/4"}},
    "the plan": {"about": {**ABOUT, "plan": "sha256:" + "ac" * 32}},
    "the salt": {"salt": "00" * 32},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_that_differs_anywhere_has_another_commitment(keeping, change):
    commitment = keeping.keep(ABOUT, COUNTS)
    (record,) = keeping.read_all()
    assert check(record.to_dict() | CHANGES[change]) != commitment


NO_RECORDS = {
    "nothing": None,
    "a list": [],
    "no salt": {"about": ABOUT, "counts": COUNTS},
    "more": {"about": ABOUT, "counts": COUNTS, "salt": "00" * 32, "more": 1},
    "a short salt": {"about": ABOUT, "counts": COUNTS, "salt": "00" * 31},
    "a salt of capitals": {"about": ABOUT, "counts": COUNTS, "salt": "AA" * 32},
    "a count below nothing": {"about": ABOUT, "counts": {"rows": -1}, "salt": "00" * 32},
    "a count with a point": {"about": ABOUT, "counts": {"rows": 1.0}, "salt": "00" * 32},
    "a count that is a word": {"about": ABOUT, "counts": {"rows": True}, "salt": "00" * 32},
    "a count without end": {"about": ABOUT, "counts": {"rows": 2**53}, "salt": "00" * 32},
    "no plan": {"about": {"step": "train/1"}, "counts": COUNTS, "salt": "00" * 32},
    "a plan that leads elsewhere": {"about": {**ABOUT, "plan": "../../x"}, "counts": COUNTS, "salt": "00" * 32},
    "half a character": {"about": {**ABOUT, "purpose": "\ud800"}, "counts": COUNTS, "salt": "00" * 32},
}


@pytest.mark.parametrize("name", NO_RECORDS)
def test_what_is_no_record_commits_to_nothing(name):
    with pytest.raises(FileFault, match="must be a record of counts"):
        check(NO_RECORDS[name])


def test_nothing_of_it_lies_in_the_clear_and_no_size_tells_of_digits(keeping, tmp_path):
    keeping.keep(ABOUT, {"rows": 1})
    keeping.keep(ABOUT, {f"column {n}: clipped": 2**53 - 1 for n in range(40)} | {"no consent for the purpose": 99999})
    sizes = {path.stat().st_size for path in files(tmp_path)}
    assert len(sizes) == 1
    for path in files(tmp_path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert not any(word in path.read_bytes() for word in (b"rows", b"train", b"clipped", b"9007", b"counts"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.dictionaries(st.text(string.printable, max_size=40), st.integers(0, 2**53 - 1), max_size=12))
def test_any_counts_come_back(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("kept")
    commitment = Keeping(folder / "counts", KEY).keep(ABOUT, counts)
    (record,) = Keeping(folder / "counts", KEY).read_all()
    assert (record.counts, record.commitment) == (counts, commitment)


def test_records_are_listed_by_plan_and_step_as_numbers_and_attempt(keeping):
    keys = [("train/10", "1"), ("train/9", "2"), ("train/9", "1"), ("evaluate/2", "1"), ("train/9", "10")]
    for step, attempt in keys:
        keeping.keep({**ABOUT, "step": step, "attempt": attempt}, COUNTS)
    listed = [(record.about["step"], record.about["attempt"]) for record in keeping.read_all()]
    assert listed == [("evaluate/2", "1"), ("train/9", "1"), ("train/9", "2"), ("train/9", "10"), ("train/10", "1")]


def test_a_file_that_was_changed_moved_or_sealed_under_another_key_is_named(keeping, tmp_path):
    keeping.keep(ABOUT, COUNTS)
    keeping.keep(ABOUT, COUNTS)
    one, other = files(tmp_path)
    with pytest.raises(FileFault) as refused:
        Keeping(tmp_path / "workspace" / "counts", bytes(32)).read_all()
    assert {fault.place for fault in refused.value.faults} == {str(one), str(other)}
    good = one.read_bytes()
    for data in (other.read_bytes(), good[:-1], bytes([good[0] ^ 1]) + good[1:], b""):
        one.write_bytes(data)
        with pytest.raises(FileFault, match=one.name):
            keeping.read_all()
    one.write_bytes(good)
    elsewhere = one.parent.with_name("cd" * 32)
    elsewhere.mkdir()
    one.rename(elsewhere / one.name)
    with pytest.raises(FileFault, match="is another record's file"):
        keeping.read_all()


def test_what_a_crash_left_beside_a_record_is_no_record(keeping, tmp_path):
    keeping.keep(ABOUT, COUNTS)
    (path,) = files(tmp_path)
    path.with_name(path.name + ".new").write_bytes(b"half")
    assert len(keeping.read_all()) == 1
    assert Keeping(tmp_path / "nowhere", KEY).read_all() == []


def test_its_text_shows_nothing():
    assert repr(Record(ABOUT, COUNTS, "00" * 32)) == "Record(...)"


# --- in the ledger ------------------------------------------------------------------------------------------


def reserved(federation, name="amber"):
    return [entry.body for entry in federation.entries(name) if entry.kind == "reserve"]


def test_every_charge_commits_to_what_was_opened_for_it(agreed):
    for round_, kind in itertools.product((1, 2), ("train", "measure")):
        getattr(agreed, kind)("amber", round_)
    records, bodies = agreed.kept(), reserved(agreed)
    assert len(bodies) == len(records) == 4
    for body in bodies:
        record = records[body["rows"]]
        assert record.about == {"plan": agreed.digest, "purpose": "coupons", "step": body["step"], "attempt": "1"}
        assert record.counts == {"rows": 150, "customers": 150}


def test_the_commitment_is_there_whatever_the_counts_are(agreed):
    agreed.train()
    agreed.put(table_of(count=60))
    agreed.train("amber", 2)
    few, many = (agreed.kept()[body["rows"]].counts["rows"] for body in reserved(agreed)[::-1])
    assert (few, many) == (60, 150)
    assert {tuple(sorted(body)) for body in reserved(agreed)} == {tuple(sorted(reserved(agreed)[0]))}


def test_a_question_that_was_answered_opens_nothing_and_keeps_nothing_more(agreed):
    first = agreed.train()
    before = agreed.kept()
    assert agreed.train().arrays[0].tobytes() == first.arrays[0].tobytes()
    assert agreed.kept().keys() == before.keys()


def test_no_charge_is_made_where_its_counts_cannot_be_kept(agreed):
    (agreed.folders["amber"] / "counts").write_text("in the way")
    with pytest.raises(FileFault, match="cannot be made"):
        agreed.train()
    assert reserved(agreed) == []


def test_a_refusal_keeps_no_counts(agreed):
    agreed.put(table_of(count=5))
    with pytest.raises(TaskRefused) as refused:
        agreed.train()
    assert refused.value.code == "unavailable"
    assert agreed.kept() == {}


def test_exact_counts_leave_neither_with_an_export_nor_lie_in_the_workspace(agreed):
    count = 621
    agreed.put(table_of(count=count))
    agreed.train()
    (record,) = agreed.kept().values()
    assert record.counts["rows"] == count
    output = agreed.root / "audit.bundle"
    export_bundle(agreed.folders["amber"], output, today)
    text = output.read_text(encoding="utf-8", errors="replace")
    assert record.commitment in text
    assert record.salt not in text
    assert f'"rows":{count}' not in text
    assert not (agreed.folders["amber"] / "reports" / "data-notes.log").exists()


# --- beside the charge ---------------------------------------------------------------------------------------

CHARGE = Charge(PLAN, "coupons", "train/1", 1, "training", PoissonGaussian(4.0, 0.1, 1), "os")


def test_the_commitment_is_no_part_of_what_makes_a_charge_this_one(tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite")
    with Ledger(tmp_path / "ledger.sqlite", today) as ledger:
        made = ledger.reserve(CHARGE, [], declared=2, rows=PLAN)
        assert made.charge == CHARGE == ledger.reservations()[0].charge
        assert [entry.body["rows"] for entry in ledger.entries("reserve")] == [PLAN]
        with pytest.raises(LedgerFault):
            ledger.reserve(CHARGE, [], declared=2, rows="sha256:" + "cd" * 32)


def test_a_charge_for_which_nothing_was_opened_commits_to_nothing(tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite")
    with Ledger(tmp_path / "ledger.sqlite", today) as ledger:
        ledger.reserve(CHARGE, [], declared=1)
        assert "rows" not in next(ledger.entries("reserve")).body


@pytest.mark.parametrize("rows", ["4711", "sha256:", "sha256:" + "AB" * 32, PLAN + "\n", " "])
def test_what_is_no_commitment_is_not_written(tmp_path, rows):
    Ledger.create(tmp_path / "ledger.sqlite")
    with Ledger(tmp_path / "ledger.sqlite", today) as ledger:
        with pytest.raises(LedgerFault, match="is no digest"):
            ledger.reserve(CHARGE, [], declared=1, rows=rows)
        assert list(ledger.entries()) == []
