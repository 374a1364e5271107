"""What a match leaves in files: secrets sealed and then gone, nothing in the clear, and nothing said in two ways."""

import base64
import hashlib
import io
import logging
import shutil
import stat
import traceback

import numpy as np
import pytest

from coterie.clients.erasing import erase
from coterie.clients.matching.store import MatchStore, kept_matching
from coterie.clients.matchwire import Agree, Commit, Count, End, Give, Take
from coterie.clients.refusals import TaskRefused
from coterie.clients.vault import open_vault
from coterie.privacy.errors import CoterieError
from coterie.privacy.matching.group import hash_to_group
from coterie.privacy.matching.identifiers import item
from coterie.privacy.matching.manifest import Manifest
from coterie.privacy.matching.tokens import tokens
from coterie.privacy.matchterms import match_terms
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.server.rounds import StudyAborted
from coterie.tests.clients.federation import files_of
from coterie.tests.clients.matching import Matched, all_bytes, asking, chunks_of, match_plan, questions, sealed_anew
from coterie.tests.clients.summing import quick_folder

CANARY = "canary-card-7f3a91c4"


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with chunks_of(64):
        yield


@pytest.fixture(scope="module")
def folder():
    with quick_folder() as found:
        yield found


@pytest.fixture(scope="module")
def templates(folder):
    """Federations of two that consented, by outcome."""
    return {
        outcome: Matched(folder / outcome, match_plan(2, outcome)).consented()
        for outcome in ("counts", "rows", "tokens")
    }


@pytest.fixture
def made(templates, folder):
    """Returns a copy of one of them."""

    def make(outcome):
        return templates[outcome].copied(folder / f"copy-{sum(1 for _ in folder.iterdir())}")

    return make


def spellings(secret):
    """A secret as it might lie somewhere."""
    coded = [base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), *coded]


def refused(federation, asked, code="match", name="amber"):
    with pytest.raises(TaskRefused) as caught:
        federation.answer(name, asked)
    assert caught.value.code == code
    return str(caught.value)


def answer_or_code(federation, asked):
    """What amber answers, or the word that it refuses with."""
    try:
        return federation.answer("amber", asked)
    except TaskRefused as refusal:
        return refusal.code


# --- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_secrets_are_never_in_the_clear_and_gone_after_the_end(made, outcome):
    federation = made(outcome)
    lead = federation.lead(asking(End))
    secrets = []
    for name in federation.names:
        held = federation.stands(name).secrets
        secrets += [one for one in (held.scalar, held.blind, held.channel) if one is not None]
    assert len(set(secrets)) == (4 if outcome == "counts" else 6)
    during = all_bytes(federation.folders.values())
    lead.on()
    after = all_bytes(federation.folders.values())
    for files in (during, after):
        for secret in secrets:
            assert [path for path, data in files.items() if any(one in data for one in spellings(secret))] == []
    for name in federation.names:
        assert {path.name for path in federation.store(name).folder.iterdir()} == {"ended"}
        assert federation.store(name).load() is None


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_files_of_a_match_are_for_their_owner_alone(made, outcome):
    federation = made(outcome)
    federation.lead(asking(End))
    for name in federation.names:
        folder = federation.folders[name] / "matches"
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0 or federation.folders[name].stat().st_mode & 0o077 == 0
        for path in federation.store(name).folder.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
        assert stat.S_IMODE(federation.store(name).folder.stat().st_mode) == 0o700


def test_a_match_of_which_the_secrets_are_gone_answers_nothing_more(made):
    federation = made("rows")
    lead = federation.lead()
    for name, asked, _ in lead.said:
        if not isinstance(asked, End):
            refused(federation, asked, "task" if isinstance(asked, Commit) else "match", name)
    again = [(name, federation.answer(name, asked)) for name, asked, _ in lead.said if isinstance(asked, End)]
    assert again == [(name, answer) for name, asked, answer in lead.said if isinstance(asked, End)]


# --- the clear --------------------------------------------------------------------------------------------------


def heard(data):
    """Whether an identifier of the canary's, or the hash that everybody can make of it, is in bytes."""
    texts = [CANARY.encode(), CANARY.upper().encode(), CANARY.encode("utf-16-le")]
    digests = [hashlib.new(kind, CANARY.encode()).digest() for kind in ("sha256", "sha1", "md5")]
    every = [*texts, *(text.hex().encode() for text in texts), *(one for d in digests for one in spellings(d))]
    return any(one in data for one in every)


def test_the_listener_hears():
    digest = hashlib.sha256(CANARY.encode()).digest()
    for data in (CANARY.encode(), digest, digest.hex().encode(), base64.b64encode(b"x" + digest)):
        assert heard(b"..." + data + b"...")
    assert not heard(b"nothing of the kind")


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_no_identifier_is_in_a_file_a_message_a_log_or_an_exception(folder, outcome, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("coterie").addHandler(handler)
    cards = {name: {f"{name}{number}" for number in range(30)} | {CANARY} for name in ("amber", "birch")}
    federation = Matched(folder / f"canary-{outcome}", match_plan(2, outcome), cards)
    federation.random = OsSource()
    grid, said = federation.grid(), []
    try:
        federation.run(grid)
        federation.digest = "sha256:" + "0" * 64
        for asked in (Commit(federation.digest, 1), Agree(federation.digest, ()), Count(federation.digest)):
            with pytest.raises(CoterieError) as caught:
                federation.answer("amber", asked)
            said.append("".join(traceback.format_exception(caught.value)))
    finally:
        logging.getLogger("coterie").removeHandler(handler)
    federation.digest = federation.plan.digest()
    assert not any(heard(wire) for wire in grid.passed)
    assert [path for path, data in files_of(federation.root).items() if heard(data) or heard(path.encode())] == []
    out, err = capfd.readouterr()
    assert not heard("".join([stream.getvalue(), caplog.text, out, err, *said]).encode())
    if outcome == "rows":  # and it was there to be heard
        assert federation.rows_at("amber") == {"birch": {CANARY}}


def test_an_identifier_that_cannot_be_used_is_heard_nowhere(folder):
    cards = {name: {f"{name}{number}" for number in range(30)} for name in ("amber", "birch")}
    federation = Matched(folder / "unusable", match_plan(2, "rows"), cards).consented()
    sealed_anew(federation, "amber", {"customer": ["a", "b"], "loyalty": [CANARY, "x" * 300 + CANARY]})
    with pytest.raises(TaskRefused) as caught:
        federation.answer("amber", Commit(federation.digest, 1))
    assert not heard("".join(traceback.format_exception(caught.value)).encode())
    rejected = "partners/amber/reports/identifiers-rejected.csv"
    found = [path for path, data in files_of(federation.root).items() if heard(data)]
    assert set(found) <= {rejected}


def test_points_in_files_say_nothing_to_who_has_no_secret(made):
    """The coordinator, or a thief of one partner's files, tries every number: no point is made of one without a key."""
    federation = made("rows")
    federation.lead(asking(End))
    terms = match_terms(federation.plan, rules=federation.stands("amber").commitment.rules)
    everybody = sorted(set().union(*federation.cards.values()))
    bare = {bytes(point) for point in hash_to_group([item("loyalty", card) for card in everybody], terms.dst)}
    for name in federation.names:
        for path in federation.store(name).folder.glob("*.points"):
            data = path.read_bytes()
            assert not bare & {data[start : start + 32] for start in range(0, len(data), 32)}, path.name


def test_tokens_in_files_of_others_are_not_the_tokens_of_the_owner(made):
    federation = made("rows")
    federation.lead(asking(End))
    kept = federation.stands("birch")
    manifest = Manifest(federation.own("birch").terms, kept.manifest)
    mine = {bytes(one) for one in tokens(manifest, np.asarray(federation.store("birch").read("made-1-2", 32)))}
    came = federation.store("birch").read("made-0-3-1", 16)
    assert len(came) > 0
    assert not mine & {bytes(one) for one in came}


# --- erasing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_erasing_a_customer_ends_the_match_that_was_made_with_it(made, outcome):
    federation = made(outcome)
    lead = federation.lead(asking(End))
    with open_vault(federation.folders["amber"], federation.clock) as vault:
        erase(vault, "amber-0003")
    assert kept_matching(federation.workspace("amber")) == []
    assert not federation.store("amber").folder.exists()
    for asked in (End(federation.digest), Commit(federation.digest, 1)):
        with pytest.raises(TaskRefused) as caught:
            federation.answer("amber", asked)
        assert caught.value.code in {"match", "lost"}
    assert federation.learned("amber") == 0
    with pytest.raises(StudyAborted, match="amber"):
        federation.run()
    assert lead.next is not None


def test_erasing_a_customer_takes_what_a_finished_match_found_of_it(made):
    federation = made("rows")
    federation.lead()
    found = federation.customers_at("amber")["birch"]
    who = sorted(found)[0]
    with open_vault(federation.folders["amber"], federation.clock) as vault:
        erase(vault, who)
    assert federation.customers_at("amber")["birch"] == found - {who}


# --- older files ------------------------------------------------------------------------------------------------


def test_an_older_state_put_back_says_nothing_else(made, folder):
    """The files of the match as they were at every question are put back at every later one: same bytes, or refused."""
    federation = made("rows")
    snapshots, answers = {}, {}
    going = questions(federation)
    name, asked = next(going)
    count = 0
    while True:
        if name == "amber" and federation.store("amber").folder.exists() and count % 3 == 0:
            snapshots[count] = shutil.copytree(federation.store("amber").folder, folder / f"snapshot-{count}")
        answers[count] = (name, asked, federation.answer(name, asked))
        count += 1
        if isinstance(asked, End):
            break
        try:
            name, asked = going.send(answers[count - 1][2])
        except StopIteration:
            break
    federation.random = SeededSource(b"another")  # so that nothing is equal by itself
    same = refusals = 0
    for taken, snapshot in snapshots.items():
        shutil.rmtree(federation.store("amber").folder)
        shutil.copytree(snapshot, federation.store("amber").folder)
        for number, (who, question, answer) in answers.items():
            if who != "amber" or number < taken or isinstance(question, End):
                continue
            found = answer_or_code(federation, question)
            assert found in (answer, "match")
            same, refusals = same + (found == answer), refusals + (found == "match")
    assert same > 0
    assert refusals > 0


class Stopped(BaseException):
    """Stands for the power that goes out."""


def test_a_piece_that_was_kept_when_the_power_went_out_leaves_as_it_was(made, monkeypatch):
    federation = made("rows")
    federation.random = OsSource()
    lead = federation.lead(asking(Give, "amber"))

    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(MatchStore, "save", stop)
        with pytest.raises(Stopped):
            federation.answer("amber", lead.next[1])
    (path,) = federation.store("amber").folder.glob("*.parcel")
    before = path.read_bytes()
    assert federation.answer("amber", lead.next[1]).parcel.to_bytes() == before
    lead.on()
    assert federation.rows_at("birch") == federation.shared_at("birch")


def test_a_parcel_that_is_made_again_of_older_files_does_not_leave(made, folder):
    federation = made("rows")
    federation.random = OsSource()
    lead = federation.lead(asking(Give, "amber"))
    older = shutil.copytree(federation.store("amber").folder, folder / "older")
    first = federation.answer("amber", lead.next[1])
    assert federation.answer("amber", lead.next[1]) == first
    shutil.rmtree(federation.store("amber").folder)
    shutil.copytree(older, federation.store("amber").folder)
    for _ in range(2):
        assert "older than the ledger" in refused(federation, lead.next[1])


def test_a_list_that_the_ledger_disclosed_and_the_files_have_not_is_not_made_anew(made):
    for outcome in ("rows", "counts"):
        federation = made(outcome)
        federation.answer("amber", Commit(federation.digest, 1))
        federation.store("amber").drop()
        refused(federation, Commit(federation.digest, 1), "match" if outcome == "rows" else "lost")
        refused(federation, Commit(federation.digest, 2), "task")


NEEDED = {
    "state": asking(Take, "amber"),
    "order": asking(Take, "amber"),
    "own.points": asking(Give, "amber"),
    "made-1-1.points": lambda name, asked: isinstance(asked, Give) and (name, asked.address.list) == ("amber", "birch"),
}
"""A partner's files, and the question that reads each."""


@pytest.mark.parametrize("what", NEEDED)
@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
def test_a_file_that_is_damaged_is_one_clear_end(made, what, how):
    federation = made("rows")
    lead = federation.lead(NEEDED[what])
    path = federation.store("amber").folder / what
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data[:-5] if how == "cut" else data)
    with pytest.raises(TaskRefused) as caught:
        lead.on()
    assert caught.value.code in {"fault", "match"}
    assert len(caught.value.faults) == 1
    assert federation.learned("amber") == federation.learned("birch") == 0
