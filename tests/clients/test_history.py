"""A partner's ledger says whose it is and under which rules, and answers nothing once an older one was put back."""

import dataclasses
import hashlib
import hmac
import shutil
import sqlite3
import tomllib

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from coterie.clients.receiving import record_path
from coterie.clients.refusals import TaskRefused
from coterie.clients.wire import (
    CLOSE,
    EVALUATE,
    PROPOSE,
    TRAIN,
    decode_release,
    encode_close,
    encode_plan,
    encode_task,
    split_head,
    with_witness,
)
from coterie.models.modelfile import load_model
from coterie.privacy.canonical import digest
from coterie.privacy.checkpoint import cosign, read_note, sign_checkpoint
from coterie.privacy.entries import check_entry
from coterie.privacy.errors import FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.merkle import check_consistency
from coterie.privacy.policy import policy_digest
from coterie.privacy.record import Receipt, StudyRecord, read_record, sign_record
from coterie.privacy.release import ModelReceived, release_digest, weights_digest
from coterie.tests.clients.federation import BOOKKEEPING, NAMES, Federation, files_of, study, watched

SHORT = study(training__rounds=1, metrics__rounds=(1,))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A study of one round, carried out once."""
    federation = Federation(tmp_path_factory.mktemp("history") / "template", SHORT)
    federation.progress = federation.run()
    return federation


@pytest.fixture
def finished(template, tmp_path):
    """The same study, for one test alone."""
    federation = Federation(shutil.copytree(template.root, tmp_path / "finished"), SHORT)
    federation.progress = template.progress
    return federation


def of_kind(federation, kind, name="amber"):
    return [entry.body for entry in federation.everything(name) if entry.kind == kind]


def noted(federation, name="amber", by=None, at=5):
    """The checkpoint of a partner's ledger as it is, cosigned."""
    with Ledger(federation.workspace(name).ledger, federation.clock) as ledger:
        return cosign(ledger.checkpoint(federation.workspace(name).identity), by or federation.coordinator, at)


def asked(federation, note, message_type=TRAIN, content=None, name="amber"):
    """Ask with a checkpoint; return the reply."""
    content = encode_task(federation.task()) if content is None else content
    shown = content if note is None else with_witness(content, note)
    return federation.ask(federation.grid(), message_type, shown, name)


# --- whose ledger it is, and under which rules ----------------------------------------------------------------------


def test_a_ledger_begins_with_whose_it_is_and_says_so_once(federation):
    federation.propose()
    federation.propose()
    (opened,) = of_kind(federation, "opened")
    key = federation.workspace().identity.public
    groups = opened.pop("groups")
    assert opened == {"format": "coterie/ledger/v2", "partner": "amber", "key": key, "carried": 0}
    secret = federation.workspace().group_key
    made = hmac.new(secret, b"coterie/groups-commitment/v1\n", hashlib.sha256).hexdigest()
    assert groups == f"sha256:{made}"
    assert secret.hex() not in groups
    assert federation.everything()[0].kind == "opened"


def test_entries_that_were_there_before_are_counted_as_carried_over(federation):
    federation.workspace().ledger.unlink()
    Ledger.create(federation.workspace().ledger)  # as one of version 1 is, before anybody opened it in this version
    with Ledger(federation.workspace().ledger, federation.clock) as ledger:
        for _ in range(3):
            ledger.record("refusal", {"release": "", "plan": "", "codes": []})
    federation.propose()
    assert [body["carried"] for body in of_kind(federation, "opened")] == [3]


def test_another_identity_than_the_ledgers_does_nothing(federation):
    federation.propose()
    before = federation.everything()
    path = federation.folders["amber"] / "keys" / "identity.pem"
    path.unlink()
    Identity.create().save(path)
    with pytest.raises(FileFault, match=r"identity\.pem: is not the key that the ledger was opened with"):
        federation.propose()
    assert federation.everything() == before


def test_another_key_of_the_groups_would_move_customers_and_does_nothing(agreed):
    before = agreed.everything()
    (agreed.folders["amber"] / "keys" / "groups.key").write_bytes(bytes(range(32)))
    with pytest.raises(FileFault, match=r"groups\.key: is not the key that the ledger was opened with"):
        agreed.train()
    assert agreed.everything() == before


def test_a_policy_is_written_down_in_full_before_the_answer_that_rests_on_it(federation):
    federation.propose()
    path = federation.workspace().policy
    assert of_kind(federation, "policy") == [
        {"policy": policy_digest(path), "content": tomllib.loads(path.read_text(encoding="utf-8"))}
    ]
    assert [entry.kind for entry in federation.everything()] == ["opened", "vault", "policy", "consent"]
    assert of_kind(federation, "consent")[0]["policy"] == policy_digest(path)


def test_a_policy_is_written_down_again_just_when_it_changes(agreed):
    path = agreed.workspace().policy
    first = path.read_text(encoding="utf-8")
    path.write_text("# a word more\n" + first, encoding="utf-8")
    agreed.train()
    assert len(of_kind(agreed, "policy")) == 1  # another layout is not another policy
    agreed.policy(purposes=["coupons", "churn"])
    agreed.measure()
    agreed.propose()
    path.write_text(first, encoding="utf-8")
    agreed.propose()
    agreed.propose()
    digests = [body["policy"] for body in of_kind(agreed, "policy")]
    assert len(digests) == 3
    assert digests[0] == digests[2] != digests[1]
    assert all(body["policy"] == digest(body["content"]) for body in of_kind(agreed, "policy"))


def test_a_policy_that_cannot_be_read_is_not_written_down_and_refuses(agreed):
    agreed.workspace().policy.write_text("canary = [", encoding="utf-8")
    for work in (agreed.train, agreed.measure):
        with pytest.raises(TaskRefused) as caught:
            work()
        assert caught.value.code == "no-consent"
    assert agreed.propose().codes == ("policy-missing",)
    assert len(of_kind(agreed, "policy")) == 1


def test_whatever_a_study_wrote_is_of_a_known_kind_and_shape(finished):
    finished.policy(purposes=["churn"])
    finished.propose()
    for name in NAMES:
        for entry in finished.everything(name):
            check_entry(entry)
    kinds = {entry.kind for entry in finished.everything()}
    assert kinds == {"consent", "reserve", "settle", "refusal", *BOOKKEEPING}


# --- the checkpoint beside an answer ----------------------------------------------------------------------------------


def test_a_coordinator_that_asks_for_it_is_told_the_checkpoint_and_that_it_extends_the_last(agreed):
    note = noted(agreed)
    seen, _ = read_note(note, partner=agreed.workspace().identity.public, coordinators=(agreed.coordinator.public,))
    for since, shown in ((0, ""), (seen.size, note)):
        head, _ = split_head(asked(agreed, shown).content)
        now, cosigned = read_note(head.note, partner=agreed.workspace().identity.public)
        assert (head.since, cosigned) == (since, ())
        assert now.size == len(agreed.everything())
        if since:
            proof = [bytes.fromhex(step) for step in head.proof]
            check_consistency((seen.size, seen.root), (now.size, now.root), proof)


def test_a_coordinator_that_does_not_ask_is_told_no_checkpoint(agreed):
    head, content = split_head(asked(agreed, None).content)
    assert head is None
    assert set(content) == {"release", "arrays"}


def test_a_refusal_by_word_carries_no_checkpoint(agreed):
    reply = asked(agreed, "", content=encode_task(agreed.task(7)))
    assert (reply.has_error(), reply.error.reason) == (True, "task")


def test_a_checkpoint_that_was_shown_is_kept_once(agreed):
    note, later = noted(agreed), noted(agreed, at=6)
    for shown in (note, note, later):
        assert not asked(agreed, shown).has_error()
    with Ledger(agreed.workspace().ledger, agreed.clock) as ledger:
        assert ledger.checkpoints() == (note,)  # one of a size: a coordinator cannot fill the disk
    assert later != note
    raw = sqlite3.connect(agreed.workspace().ledger)
    for statement in ("UPDATE checkpoints SET size = 1", "DELETE FROM checkpoints"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


# --- an older ledger --------------------------------------------------------------------------------------------------


def kept(federation, name="amber"):
    """What a backup of the ledger and the outbox holds; a function that puts it back."""
    folder = federation.folders[name]
    backup = folder.parent / f"{name}-backup"
    shutil.rmtree(backup, ignore_errors=True)
    shutil.copytree(folder / "outbox", backup / "outbox")
    source = sqlite3.connect(folder / "ledger.sqlite")
    target = sqlite3.connect(backup / "ledger.sqlite")
    source.backup(target)
    source.close()
    target.close()

    def restore():
        for file in folder.glob("ledger.sqlite*"):
            file.unlink()
        shutil.copy(backup / "ledger.sqlite", folder / "ledger.sqlite")
        shutil.rmtree(folder / "outbox")
        shutil.copytree(backup / "outbox", folder / "outbox")

    return restore


def questions(federation):
    """Everything that a coordinator may ask."""
    record = StudyRecord(federation.digest, weights_digest(federation.weights()), {}, ())
    return {
        PROPOSE: encode_plan(federation.signed.to_bytes()),
        TRAIN: encode_task(federation.task()),
        EVALUATE: encode_task(federation.task()),
        CLOSE: encode_close(sign_record(record, federation.coordinator), federation.weights()),
    }


def answers_nothing(federation, note):
    before = federation.everything()
    with watched(federation.streams()) as opened:
        for message_type, content in questions(federation).items():
            reply = asked(federation, note, message_type, content)
            assert (message_type, reply.has_error() and reply.error.reason) == (message_type, "rollback")
    assert opened == []
    assert federation.everything() == before
    with Ledger(federation.workspace().ledger, federation.clock) as ledger:
        assert ledger.checkpoints() == ()


@pytest.mark.parametrize("work", ["train", "measure"])
def test_an_older_ledger_that_was_put_back_answers_nothing(agreed, work):
    restore = kept(agreed)
    getattr(agreed, work)()
    note = noted(agreed)
    restore()
    assert agreed.reservations() == ()
    answers_nothing(agreed, note)


def test_an_older_ledger_that_has_grown_as_long_on_another_way_answers_nothing(agreed):
    restore = kept(agreed)
    agreed.train()
    note = noted(agreed)
    restore()
    agreed.measure()
    agreed.policy(purposes=["coupons", "churn"])
    agreed.propose()
    assert len(agreed.everything()) > int(note.split("\n")[1])
    answers_nothing(agreed, note)


def test_the_newest_ledger_put_back_answers_again(agreed):
    restore = kept(agreed)
    first = agreed.train()
    note = noted(agreed)
    newest = kept(agreed)  # the same place: from here on `restore` restores the newest
    restore = newest
    restore()
    reply = asked(agreed, note)
    assert release_digest(first) == agreed.reservations()[0].settled
    assert not reply.has_error()


FORGED = {
    "another partner's": lambda f: noted(f, "birch"),
    "another coordinator's": lambda f: noted(f, by=f.workspace("birch").identity),
    "not cosigned": lambda f: noted(f).rsplit("\u2014", 1)[0],
    "of a size that never was": lambda f: cosign(
        sign_checkpoint(10**6, bytes(32), f.workspace().identity), f.coordinator, 5
    ),
    "of a root that never was": lambda f: cosign(
        sign_checkpoint(1, bytes(32), f.workspace().identity), f.coordinator, 5
    ),
    "signed by the coordinator alone": lambda f: cosign(sign_checkpoint(1, bytes(32), f.coordinator), f.coordinator, 5),
    "altered": lambda f: noted(f).replace("\n4\n", "\n3\n"),
    "no note": lambda f: "canary-4711",
    "a line feed": lambda f: "\n",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_checkpoint_that_is_not_the_ledgers_and_the_coordinators_is_answered_with_one_word(agreed, name):
    answers_nothing(agreed, FORGED[name](agreed))


@pytest.mark.parametrize(
    "record",
    [{"note": "x" * 5000}, {"note": 5}, {}, {"note": "", "more": 1}, {"other": ""}],
    ids=["long", "a number", "empty", "a key more", "another key"],
)
def test_what_is_no_text_of_a_checkpoint_is_a_fault(agreed, record):
    before = agreed.everything()
    content = RecordDict({**encode_task(agreed.task()), "witness": ConfigRecord(record)})
    assert asked(agreed, None, content=content).error.reason == "fault"
    assert agreed.everything() == before


# --- the final model and the record -----------------------------------------------------------------------------------


def record_of(federation, **changes):
    path = record_path(federation.workspace(), federation.digest)
    record = read_record(path.read_bytes(), coordinator=federation.coordinator.public)
    return dataclasses.replace(record, **changes)


def test_every_partner_keeps_the_model_and_the_same_record(finished):
    record = record_of(finished)
    assert record.model == weights_digest(finished.progress.weights)
    assert {(r.partner, r.step, r.attempt) for r in record.receipts} == {
        (name, step, 1) for name in NAMES for step in ("train/1", "evaluate/1")
    }
    for name in NAMES:
        path = record_path(finished.workspace(name), finished.digest)
        assert read_record(path.read_bytes(), coordinator=finished.coordinator.public) == record
        model = load_model(path.with_name(path.name.replace(".record.json", ".safetensors")))
        assert weights_digest(model.weights) == record.model
        settled = {r.settled for r in finished.reservations(name)}
        assert {r.release for r in record.receipts if r.partner == name} == settled
        (body,) = of_kind(finished, "model", name)
        received = ModelReceived(finished.digest, name, record.model, record.digest())
        assert body == {
            "release": release_digest(received),
            "plan": finished.digest,
            "model": record.model,
            "record": record.digest(),
        }


def test_a_model_that_comes_again_is_answered_alike_and_written_down_once(finished):
    record, weights = record_of(finished), finished.progress.weights
    content = encode_close(sign_record(record, finished.coordinator), weights)
    for note in (noted(finished), noted(finished)):
        _, reply = split_head(asked(finished, note, CLOSE, content).content)
        got = decode_release(reply, update=None, histogram=None)
        assert got == ModelReceived(finished.digest, "amber", record.model, record.digest())
    assert len(of_kind(finished, "model")) == 1


def test_a_finished_study_that_is_run_again_writes_nothing_new(finished):
    before = {name: finished.everything(name) for name in NAMES}
    finished.run()
    assert {name: finished.everything(name) for name in NAMES} == before


RECEIPT = Receipt("amber", "train/1", 1, "sha256:" + "0" * 64)
LIES = {
    "a release that was never made": ("rollback", lambda r: dataclasses.replace(r, receipts=(RECEIPT,))),
    "another attempt": (
        "rollback",
        lambda r: dataclasses.replace(r, receipts=tuple(dataclasses.replace(one, attempt=2) for one in r.receipts)),
    ),
    "another step": (
        "rollback",
        lambda r: dataclasses.replace(
            r, receipts=tuple(dataclasses.replace(one, step=one.step + "x") for one in r.receipts)
        ),
    ),
    "another model": ("task", lambda r: dataclasses.replace(r, model="sha256:" + "0" * 64)),
    "another plan": ("no-consent", lambda r: dataclasses.replace(r, plan="sha256:" + "0" * 64)),
    "a plan that is a path": ("no-consent", lambda r: dataclasses.replace(r, plan="../../policy.toml")),
}


def refused_model(federation, data, weights):
    before, files = federation.everything(), files_of(federation.folders["amber"] / "models")
    with federation.node() as node, pytest.raises(TaskRefused) as caught:
        node.receive(data, weights)
    assert federation.everything() == before
    assert files_of(federation.folders["amber"] / "models") == files
    return caught.value.code


@pytest.mark.parametrize("name", LIES)
def test_a_record_that_is_not_true_to_the_ledger_is_refused_and_not_kept(finished, name):
    code, lie = LIES[name]
    data = sign_record(lie(record_of(finished)), finished.coordinator)
    assert refused_model(finished, data, finished.progress.weights) == code


def test_receipts_of_other_partners_are_theirs_to_check(finished):
    record = record_of(finished)
    others = tuple(r for r in record.receipts if r.partner != "amber")
    made_up = tuple(sorted((*others, dataclasses.replace(RECEIPT, partner="birch"))))
    data = sign_record(dataclasses.replace(record, receipts=made_up), finished.coordinator)
    assert refused_model(finished, data, finished.progress.weights) == "replay"  # not "rollback": they are not its own
    assert len(of_kind(finished, "model")) == 1  # a study has one record for life


def test_a_coordinator_that_cosigned_before_must_show_it(finished):
    task = encode_task(finished.task(round_=2, weights=finished.progress.weights))
    for note in ("", None):
        assert asked(finished, note, "train", task).error.reason == "rollback"


def test_a_record_is_the_pinned_coordinators_alone_and_whole(finished):
    record, weights = record_of(finished), finished.progress.weights
    data = sign_record(record, finished.coordinator)
    assert refused_model(finished, sign_record(record, Identity.create()), weights) == "signature"
    for harm in (b"", b"[]", b"{}", data[:-1], data.replace(b'"attempt":1', b'"attempt":2'), data + b" ", b"[" * 10**5):
        assert refused_model(finished, harm, weights) == "signature"


def test_a_model_of_other_weights_or_shapes_is_refused(finished):
    data, weights = sign_record(record_of(finished), finished.coordinator), finished.progress.weights
    other = (weights[0] + np.float32(1), *weights[1:])
    for wrong in (other, weights[:1], weights[::-1], (*weights, weights[0]), ()):
        assert refused_model(finished, data, wrong) == "task"


def test_a_model_is_not_taken_from_a_study_without_consent(federation):
    federation.propose(signed=b"no plan")  # the policy is written down with the first question
    weights = federation.weights()
    data = sign_record(StudyRecord(federation.digest, weights_digest(weights), {}, ()), federation.coordinator)
    assert refused_model(federation, data, weights) == "no-consent"
    federation.propose()
    federation.workspace().plan(federation.digest).unlink()
    assert refused_model(federation, data, weights) == "no-consent"
