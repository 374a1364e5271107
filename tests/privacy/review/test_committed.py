"""Records of exact counts that a partner shows, held against its bundle; by the formula as the format describes it."""

import functools
import hashlib
import json
import subprocess
import sys

import pytest

from coterie.cli.main import main
from coterie.clients.keeping import keeping_of
from coterie.privacy.counts import Record
from coterie.privacy.errors import FileFault
from coterie.privacy.review.bundle import BundleFault
from coterie.privacy.review.committed import held, records_in
from coterie.tests.privacy.review.bundles import Story, folder, made, opened, resigned
from coterie.tests.privacy.review.matchstory import MatchStory


@functools.cache
def shown():
    """What amber's counts command prints, as it prints it."""
    workspace = made().federation.workspace()
    with workspace.lock():
        found = keeping_of(workspace).read_all()
    return json.dumps([record.to_dict() | {"commitment": record.commitment} for record in found])


def written(content, name="file"):
    path = folder() / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def told(bundle, records):
    return held(written(bundle), records_in(written(records)))


@pytest.fixture
def coterie(monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


def test_every_record_of_a_partner_is_found_at_its_charge():
    found = told(made().bundle, json.loads(shown()))
    entries = opened(made().bundle).entries
    charges = {n: e["body"] for n, e in enumerate(entries, start=1) if e["kind"] == "reserve"}
    assert sorted(one.entry for one in found) == sorted(charges)
    for one in found:
        body = charges[one.entry]
        assert (one.plan, one.step, one.attempt) == (body["plan"], body["step"], body["attempt"])
        assert (one.commitment, one.wrong) == (body["rows"], "")


def test_one_record_by_itself_is_held_too_and_its_own_commitment_is_not_believed():
    first = json.loads(shown())[0]
    (found,) = told(made().bundle, {**first, "commitment": "sha256:" + "0" * 64})
    assert (found.commitment, found.wrong) == (first["commitment"], "")


def changed(part, **values):
    first = json.loads(shown())[0]
    return {**first, part: {**first[part], **values}}


@pytest.mark.parametrize(
    ("part", "values"),
    [("counts", {"rows": 1}), ("counts", {"more": 0}), ("about", {"attempt": "2"})],
    ids=["a count", "one count more", "another attempt"],
)
def test_a_record_that_was_changed_is_nobodys(part, values):
    (found,) = told(made().bundle, changed(part, **values))
    assert (found.entry, "no entry commits to it" in found.wrong) == (0, True)


def test_a_record_with_another_salt_is_nobodys():
    (found,) = told(made().bundle, {**json.loads(shown())[0], "salt": "0" * 64})
    assert found.entry == 0


def test_the_records_of_another_partner_are_nobodys():
    found = told(made().bundles["birch"], json.loads(shown()))
    assert {one.entry for one in found} == {0}


def committing(about, **body):
    """A story whose charge commits to a record of one's own; the commitment by hand."""
    story = Story(consent={"elsewhere": {"coupons": "contract"}})
    story.vault()
    plan = story.plan()
    story.consent(plan)
    place = story.charge(plan)
    about = {"plan": plan.digest(), "purpose": plan.purpose, "step": "train/1", "attempt": "1"} | about
    record = {"about": about, "counts": {"rows": 20, "customers": 10}, "salt": "5a" * 32}
    plain = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    rows = "sha256:" + hashlib.sha256(b"coterie/counts/v1\n" + plain).hexdigest()
    story.parts["entry"][place - 1]["body"] |= {"rows": rows} | body
    return story, place, plan, record


def test_a_record_that_speaks_of_another_step_than_its_charge_is_told():
    story, place, _, record = committing({"step": "train/2", "purpose": "calls"})
    (found,) = told(story.bundle(), record)
    assert (found.entry, found.step) == (place, "train/1")
    assert found.wrong == "it tells another purpose and step than the entry that commits to it"
    honest, place, _, record = committing({})
    (found,) = told(honest.bundle(), record)
    assert (found.entry, found.wrong) == (place, "")


def test_one_record_for_two_charges_is_told():
    story, place, plan, record = committing({})
    second = story.charge(plan, "train/2")
    entries = story.parts["entry"]
    entries[second - 1]["body"]["rows"] = entries[place - 1]["body"]["rows"]
    (found,) = told(story.bundle(), record)
    assert (found.entry, "more than one entry" in found.wrong) == (place, True)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"[[" * 100_000, b'{"about": {}}'],
    ids=["nothing", "half", "no record", "a number", "too deep", "a part"],
)
def test_what_is_no_record_is_one_fault_without_a_value(content):
    with pytest.raises(FileFault) as caught:
        records_in(written(content))
    (fault,) = caught.value.faults
    assert fault.rule == "must be a record of counts with plan and salt"


def test_a_count_below_zero_makes_no_record():
    with pytest.raises(FileFault) as caught:
        records_in(written([*json.loads(shown()), changed("counts", rows=-1)]))
    place = caught.value.faults[0].place
    assert place.endswith("record 5")
    assert "-1" not in str(caught.value).replace(place, "")  # a folder's random name may hold anything


def test_what_is_no_bundle_or_no_file_is_a_fault(tmp_path):
    records = records_in(written(json.loads(shown())))
    for path in (tmp_path / "none", written(b"{}\n"), written(made().bundle[:-400])):
        with pytest.raises(BundleFault):
            held(path, records)
    with pytest.raises(FileFault):
        records_in(tmp_path / "none")


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_says_which_step_each_record_is_of(coterie):
    bundle, records = written(made().bundle), written(shown().encode())
    code, out, _ = coterie("audit", "counts", bundle, records)
    assert code == 0
    assert out.count("commits to it: train/1, attempt 1, of study spring") == 1
    assert "the bundle: nothing contradicts it" in out
    assert not [count for record in json.loads(shown()) for count in record["counts"].values() if f" {count} " in out]
    code, out, _ = coterie("audit", "counts", bundle, records, "--json")
    assert (code, len(json.loads(out)["records"]), json.loads(out)["bundle"]) == (0, 4, {})


def test_the_command_ends_with_one_for_a_record_that_is_nobodys_and_for_a_forged_bundle(coterie):
    bundle, records = written(made().bundle), written(shown().encode())
    code, out, _ = coterie("audit", "counts", bundle, written(changed("counts", rows=1)))
    assert (code, "record 1: no entry commits to it" in out) == (1, True)
    lie = opened(made().bundle)
    lie.of("reserve")[0]["body"]["random"] = "seeded"
    forged = written(resigned(lie, made().partner, made().coordinator))
    code, out, _ = coterie("audit", "counts", forged, records)
    assert (code, "the bundle: fails (randomness)" in out) == (1, True)
    code, _, err = coterie("audit", "counts", bundle, written(b"[]"))
    assert (code, "must be a record of counts" in err) == (2, True)


def test_the_door_opens_without_any_heavy_library():
    arguments = [str(written(made().bundle)), str(written(shown().encode()))]
    script = (
        "import sys\nfrom coterie.cli.main import main\n"
        f"sys.argv = ['coterie', 'audit', 'counts', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    code = ended.code\n"
        "print(code or 0, [n for n in ('torch', 'flwr', 'opacus', 'pandas', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_the_record_of_a_list_for_a_match_is_found_whether_it_was_charged_or_disclosed(outcome):
    story = MatchStory()
    plan = story.match(outcome)
    story.consent(plan)
    step = "match/training" if outcome == "counts" else "match/disclosure"
    about = {"plan": plan.digest(), "purpose": plan.purpose, "step": step, "attempt": "1"}
    record = Record(about, {"items": 30}, "5" * 64)
    if outcome == "counts":  # one list, which both groups of customers paid for
        places = story.pay(plan)
        for place in places:
            story.parts["entry"][place - 1]["body"]["rows"] = record.commitment
        first = places[0]
    else:
        first = story.disclose(plan, rows=record.commitment)
    (found,) = told(story.bundle(), [record.to_dict()])
    assert (found.entry, found.step, found.wrong) == (first, step, "")
    other = Record({**about, "purpose": "calls"}, record.counts, record.salt)
    entries = story.parts["entry"]
    for entry in entries:
        if entry["body"].get("rows") == record.commitment:
            entry["body"]["rows"] = other.commitment
    (wrong,) = told(story.bundle(), [other.to_dict()])
    assert "tells another purpose" in wrong.wrong
