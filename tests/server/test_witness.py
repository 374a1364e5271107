"""The coordinator as a witness: it takes no answer of a partner whose ledger does not extend what it saw before."""

import dataclasses
import json
import shutil

import pytest
from flwr.app import Message, RecordDict

from coterie.clients.wire import decode_release, encode_release, split_head, with_head
from coterie.privacy.checkpoint import Cosigned, cosign, read_note, sign_checkpoint
from coterie.privacy.errors import FileFault, LedgerFault
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.merkle import consistency_proof, leaf_hash, nodes_of, root_of
from coterie.privacy.release import LedgerHead, ModelReceived
from coterie.server.coordinator import Interrupted
from coterie.server.recording import record_of
from coterie.server.registry import Refusal, Registry
from coterie.server.witness import Witness
from coterie.tests.clients.federation import NAMES, Clients, Federation, study, today

SHORT = study(metrics__rounds=(2,))
PARTNER, OTHER, COORDINATOR = Identity.create(), Identity.create(), Identity.create()
LEAVES = [leaf_hash(b"%d" % number) for number in range(40)]
FORK = [*LEAVES[:7], leaf_hash(b"another"), *LEAVES[8:]]


def head_of(size, since, leaves=LEAVES, by=PARTNER):
    """What an honest partner sends of a ledger with these leaves."""
    nodes = nodes_of(leaves)
    proof = tuple(step.hex() for step in consistency_proof(since, size, nodes))
    return LedgerHead(sign_checkpoint(size, root_of(size, nodes), by), since, proof)


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path / "coordinator", COORDINATOR, today)


def restarted(tmp_path):
    return Witness(tmp_path / "coordinator", COORDINATOR, today)


# --- by itself ------------------------------------------------------------------------------------------------------


def test_what_extends_what_was_seen_is_cosigned_and_kept(witness):
    assert witness.note(PARTNER.public) == ""
    since = 0
    for size in (3, 3, 7, 8, 40):
        witness.see(PARTNER.public, head_of(size, since))
        checkpoint, cosigned = read_note(
            witness.note(PARTNER.public), partner=PARTNER.public, coordinators=(COORDINATOR.public,)
        )
        assert (checkpoint.size, checkpoint.root) == (size, root_of(size, nodes_of(LEAVES)))
        assert cosigned == (Cosigned(COORDINATOR.public, int(today().timestamp())),)
        since = size


def test_partners_are_seen_each_for_itself(witness):
    witness.see(PARTNER.public, head_of(9, 0))
    witness.see(OTHER.public, head_of(4, 0, by=OTHER))
    witness.see(PARTNER.public, head_of(10, 9))
    assert [witness.note(one.public).split("\n")[1] for one in (PARTNER, OTHER)] == ["10", "4"]


FALSE = {
    "a shorter ledger": head_of(8, 8),
    "a shorter ledger under its own size": dataclasses.replace(head_of(8, 8), since=9),
    "the same size on another way": dataclasses.replace(head_of(9, 9, FORK)),
    "a longer one on another way": head_of(12, 9, FORK),
    "a longer one on another way with the true proof": dataclasses.replace(
        head_of(12, 9, FORK), proof=head_of(12, 9).proof
    ),
    "no proof": dataclasses.replace(head_of(12, 9), proof=()),
    "half a proof": dataclasses.replace(head_of(12, 9), proof=head_of(12, 9).proof[:-1]),
    "a proof of no figures": dataclasses.replace(head_of(12, 9), proof=("canary-4711",)),
    "a proof from another checkpoint": head_of(12, 3),
    "a proof from nothing": head_of(12, 0),
    "another partner's": head_of(12, 9, by=OTHER),
    "the coordinator's own": head_of(12, 9, by=COORDINATOR),
    "no note": dataclasses.replace(head_of(12, 9), note="canary-4711"),
    "cosigned already": dataclasses.replace(head_of(12, 9), note=cosign(head_of(12, 9).note, COORDINATOR, 5)),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_does_not_extend_it_is_a_fault_and_what_was_seen_stays(witness, tmp_path, name):
    witness.see(PARTNER.public, head_of(9, 0))
    seen = witness.note(PARTNER.public)
    with pytest.raises(LedgerFault) as caught:
        witness.see(PARTNER.public, FALSE[name])
    assert "4711" not in str(caught.value)
    assert witness.note(PARTNER.public) == restarted(tmp_path).note(PARTNER.public) == seen
    witness.see(PARTNER.public, head_of(12, 9))


def test_what_was_seen_survives_a_restart(witness, tmp_path):
    witness.see(PARTNER.public, head_of(9, 0))
    again = restarted(tmp_path)
    assert again.note(PARTNER.public) == witness.note(PARTNER.public) != ""
    with pytest.raises(LedgerFault):
        again.see(PARTNER.public, head_of(8, 0))
    again.see(PARTNER.public, head_of(10, 9))


def test_what_was_seen_is_on_disk_before_it_is_relied_on(witness, tmp_path, monkeypatch):
    witness.see(PARTNER.public, head_of(9, 0))

    def full(path, data):
        raise OSError("no room")

    monkeypatch.setattr("coterie.server.witness.write_durably", full)
    with pytest.raises(OSError, match="no room"):
        witness.see(PARTNER.public, head_of(10, 9))
    assert restarted(tmp_path).note(PARTNER.public).split("\n")[1] == "9"


@pytest.mark.parametrize("harm", [b"", b"[]", b'""', b"[1]", b'{"a":1}', b'{"a"', b"\xff", b"null", b"[" * 10**5])
def test_a_damaged_file_of_what_was_seen_is_not_taken_for_nothing_seen(witness, tmp_path, harm):
    witness.see(PARTNER.public, head_of(9, 0))
    (tmp_path / "coordinator" / "heads.json").write_bytes(harm)
    with pytest.raises(FileFault, match="is damaged"):
        restarted(tmp_path)


def test_another_coordinators_file_is_not_believed(witness, tmp_path):
    witness.see(PARTNER.public, head_of(9, 0))
    other = Witness(tmp_path / "coordinator", Identity.create(), today)
    with pytest.raises(LedgerFault, match="not named"):
        other.see(PARTNER.public, head_of(10, 9))


# --- in a study -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A study that was never interrupted, and one that stopped after its first round."""
    whole = Federation(tmp_path_factory.mktemp("witness") / "whole", SHORT)
    half = Federation(shutil.copytree(whole.root, whole.root.with_name("half")), SHORT)
    progress, rounds = whole.run(), []
    with pytest.raises(Interrupted):
        half.run(stop=lambda: bool(rounds), show=lambda seen: rounds.append(1) if seen.what == "published" else None)
    return whole, progress, half


@pytest.fixture
def half(template, tmp_path):
    """A federation after the first of two rounds."""
    return Federation(shutil.copytree(template[2].root, tmp_path / "half"), SHORT)


def refusals(progress):
    return {(r.partner, r.step, r.round, r.code) for r in progress.refusals}


def receipts(progress):
    return {(r.partner, r.step) for r in progress.receipts}


def with_older_ledger(federation, name="amber"):
    """Put back a ledger, an outbox and a table of answers from before the study's first round."""
    folder = federation.folders[name]
    for path in (*folder.glob("ledger.sqlite*"), *(folder / "outbox").iterdir()):
        path.unlink()
    Ledger.create(folder / "ledger.sqlite")


def test_every_answer_of_a_study_extends_the_one_before_and_all_are_kept(template):
    whole, progress, _ = template
    assert progress.refusals == ()
    assert receipts(progress) == {(n, s) for n in NAMES for s in ("train/1", "train/2", "evaluate/2")}
    for name in NAMES:
        workspace = whole.workspace(name)
        key, by = workspace.identity.public, (whole.coordinator.public,)
        seen, _ = read_note(whole.witness().note(key), partner=key, coordinators=by)
        with Ledger(workspace.ledger, whole.clock) as ledger:
            assert (seen.size, seen.root) == (ledger.size, ledger.root(ledger.size))
            kept = [read_note(note, partner=key, coordinators=by) for note in ledger.checkpoints()]
        # The last word of the coordinator reached the partner: its whole ledger is cosigned, the model with it.
        assert kept[-1][0] == seen
        assert [len(cosigned) for _, cosigned in kept] == [1] * len(kept)
        assert [one.size for one, _ in kept] == sorted(one.size for one, _ in kept)


def test_the_record_is_of_all_that_was_received_and_used(template):
    whole, progress, _ = template
    record = record_of(whole.plan, progress)
    assert {(r.partner, r.step, r.release) for r in record.receipts} == {
        (name, held.charge.step, held.settled) for name in NAMES for held in whole.reservations(name)
    }
    assert list(record.receipts) == sorted(record.receipts)
    assert Registry(whole.root / "coordinator").resume(whole.digest).receipts == progress.receipts
    assert {"auc", "average_precision"} & set(record.metrics)


def test_a_partner_that_puts_an_older_ledger_back_is_named_and_the_others_go_on(half):
    with_older_ledger(half)
    progress = half.run()
    assert progress.round == 2
    assert refusals(progress) == {
        ("amber", step, round_, "rollback") for step, round_ in (("train", 2), ("evaluate", 2), ("close", 2))
    }
    assert receipts(progress) == {
        *((name, step) for name in ("birch", "cedar") for step in ("train/1", "train/2", "evaluate/2")),
        ("amber", "train/1"),
    }
    assert half.reservations() == ()


def test_a_partner_that_puts_an_older_ledger_back_in_mid_study_is_named(federation):
    def restore(seen):
        if (seen.what, seen.round) == ("published", 1):
            with_older_ledger(federation)

    progress = federation.run(show=restore)
    # Without a consent in the ledger a task would be refused for that; what was seen of the ledger comes first.
    assert refusals(progress) == {("amber", step, 2, "rollback") for step in ("train", "evaluate", "close")}


def forging(app, forge):
    """A partner whose door shows another checkpoint than the ledger's."""

    def client(message, context):
        reply = app(message, context)
        if message.metadata.message_type in {"train", "evaluate", "query.close"} and not reply.has_error():
            head, content = split_head(reply.content)
            other = forge(head)
            reply.content = content if other is None else with_head(content, other)
        return reply

    return client


def first_for_ever():
    """Show the first checkpoint again, whatever the coordinator saw since."""
    known = []

    def forge(head):
        known.append(head)
        return dataclasses.replace(known[0], since=head.since)

    return forge


FORGERIES = {
    "none at all": lambda f: lambda head: None,
    "without a proof": lambda f: lambda head: dataclasses.replace(head, proof=()),
    "the first for ever": lambda f: first_for_ever(),
    "another partner's": lambda f: (
        lambda head: LedgerHead(
            sign_checkpoint(int(head.note.split("\n")[1]), bytes(32), f.workspace("birch").identity),
            head.since,
            head.proof,
        )
    ),
    "another history": lambda f: (
        lambda head: dataclasses.replace(
            head, note=sign_checkpoint(int(head.note.split("\n")[1]), bytes(32), f.workspace().identity)
        )
    ),
    "a note of no kind": lambda f: lambda head: dataclasses.replace(head, note="canary-4711"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_an_answer_beside_a_false_checkpoint_is_not_used_and_its_partner_is_named(half, name):
    app = half.app()
    seen = half.witness().note(half.workspace().identity.public)
    progress = half.run(half.grid(Clients(app, amber=forging(app, FORGERIES[name](half)))))
    said = [r for r in progress.refusals if r.partner == "amber"]
    steps = {(r.step, r.round, r.code) for r in said}
    honest_first = {("train", 2)} if name == "the first for ever" else set()
    expected = {("train", 2), ("evaluate", 2), ("close", 2)} - honest_first
    assert steps == {(step, round_, "rejected") for step, round_ in expected}
    assert all(r.why and "4711" not in r.why for r in said)
    used = {step for partner, step in receipts(progress) if partner == "amber"}
    assert used == {"train/1"} | ({"train/2"} if honest_first else set())
    assert set(progress.histograms[2]) == {"birch", "cedar"}
    if not honest_first:
        assert half.witness().note(half.workspace().identity.public) == seen


HEADS = ["[" * 20_000, "{}", '{"note":"x"}', '{"note":1,"proof":[],"since":0}', '{"note":"","proof":[],"since":0.5}']


@pytest.mark.parametrize("text", HEADS)
def test_a_head_that_is_none_is_a_rejected_answer(half, text):
    app = half.app()

    def client(message, context):
        reply = app(message, context)
        if message.metadata.message_type == "train":
            reply.content["head"]["header"] = text
        return reply

    progress = half.run(half.grid(Clients(app, amber=client)))
    (refusal,) = [r for r in progress.refusals if r.partner == "amber" and r.step == "train"]
    assert (refusal.code, refusal.why) == ("rejected", "must have note, since and proof")


def test_a_coordinator_that_was_stopped_remembers_what_it_saw(half):
    before = json.loads((half.root / "coordinator" / "heads.json").read_bytes())
    assert set(before) == {half.workspace(name).identity.public for name in NAMES}
    progress = half.run()
    after = json.loads((half.root / "coordinator" / "heads.json").read_bytes())
    assert progress.refusals == ()
    assert all(int(after[key].split("\n")[1]) > int(note.split("\n")[1]) for key, note in before.items())


def test_a_node_that_answers_a_plan_with_a_model_received_is_named(half):
    app = half.app()

    def client(message, context):
        if message.metadata.message_type == "query.propose":
            release = ModelReceived(half.digest, "amber", "sha256:m", "sha256:r")
            return Message(encode_release(release), reply_to=message)
        return app(message, context)

    progress = half.run(half.grid(Clients(app, amber=client)))
    assert progress.refusals == (Refusal("node 1000", "consent", 0, "rejected", "another kind of release"),)


def test_a_head_goes_with_a_release_and_is_none_itself():
    content = with_head(encode_release(ModelReceived("p", "amber", "m", "r")), head_of(3, 0))
    head, rest = split_head(content)
    assert head == head_of(3, 0)
    assert decode_release(rest, update=None, histogram=None) == ModelReceived("p", "amber", "m", "r")
    assert split_head(RecordDict()) == (None, RecordDict())
