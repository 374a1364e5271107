"""Proofs that entries are in a bundle's tree, against RFC 9162 written down once more."""

import functools
import hashlib
import json

import pytest

from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.review import proofs
from coterie.privacy.review.bundle import KINDS, BundleFault, Header, bundle_lines
from coterie.privacy.review.proofs import named_in, proofs_of
from coterie.privacy.review.verify import verify_bundle
from coterie.tests.clients.federation import today
from coterie.tests.privacy.review.bundles import leaf, made, opened, resigned, tree


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "amber.bundle"
    path.write_bytes(made().bundle)
    return path


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Return a function that makes the bundle of a ledger with entries of some kinds, whatever they say."""
    monkeypatch.setattr("coterie.privacy.ledger.check_entry", lambda entry: None)
    return functools.partial(_kept, tmp_path)


def _kept(folder, kinds):
    identity = Identity.create()
    Ledger.create(folder / "ledger.sqlite")
    with Ledger(folder / "ledger.sqlite", today) as ledger:
        for number, kind in enumerate(kinds):
            ledger.record(kind, {"number": number})
        parts = dict.fromkeys(KINDS, 0) | {"entry": len(kinds)}
        header = Header("amber", identity.public, today().isoformat(), "none", parts)
        lines = bundle_lines(header, (), ledger.entries(), head=ledger.checkpoint(identity), identity=identity)
        (folder / "bundle").write_bytes(b"".join(lines))
    return folder / "bundle"


def joined(proof):
    """The root that a proof leads to, by nothing but its words."""
    value = bytes.fromhex(proof.leaf)
    for side, step in proof.steps:
        other = bytes.fromhex(step)
        value = hashlib.sha256(b"\x01" + (other + value if side == "left" else value + other)).digest()
    return value.hex()


def test_every_entry_of_a_small_ledger_is_proved(bundle):
    found = proofs_of(bundle)
    entries = opened(bundle.read_bytes()).entries
    assert [json.loads(proof.text) for proof in found] == entries
    assert [(p.entry, p.at, p.kind) for p in found] == [(e["seq"], e["at"], e["kind"]) for e in entries]
    root = tree([leaf(proof.text.encode()) for proof in found]).hex()
    for proof in found:
        assert proof.leaf == leaf(proof.text.encode()).hex()
        assert joined(proof) == proof.root == root == verify_bundle(bundle, accounting=False).root
        assert proof.size == len(entries)


@pytest.mark.parametrize("size", range(1, 18))
def test_sides_are_right_in_trees_of_any_size(kept, size):
    path = kept(["settle"] * size)
    found = proofs_of(path)
    assert len(found) == size
    assert all(joined(proof) == proof.root for proof in found)


def test_of_a_long_ledger_ends_named_and_telling_entries_are_proved(kept):
    path = kept([*["settle"] * 9, *["consent"] * 3, *["settle"] * 28])
    found = proofs_of(path, named={17, 23, 24}, limit=8)
    assert [(proof.entry, proof.kind) for proof in found] == [
        *((1, "settle"), (2, "settle"), (10, "consent"), (11, "consent")),
        *((17, "settle"), (23, "settle"), (39, "settle"), (40, "settle")),
    ]
    assert all(joined(proof) == proof.root for proof in found)


def test_an_altered_entry_leads_to_the_root_of_what_is_in_the_file(tmp_path, bundle):
    changed = bundle.read_bytes().replace(b'{"attempt":1,"event"', b'{"attempt":2,"event"', 1)
    assert changed != bundle.read_bytes()
    path = tmp_path / "altered"
    path.write_bytes(changed)
    verdict, found = verify_bundle(path, accounting=False), proofs_of(path)
    assert verdict.status == "fails"
    assert {proof.root for proof in found} == {verdict.root} != {proofs_of(bundle)[0].root}


def test_a_bundle_that_breaks_off_proves_nothing(tmp_path, bundle):
    path = tmp_path / "cut"
    data = bundle.read_bytes()
    path.write_bytes(data[: data.index(b'"seq":5')])
    assert proofs_of(path) == ()
    path.write_bytes(b"no bundle\n")
    with pytest.raises(BundleFault):
        proofs_of(path)
    with pytest.raises(BundleFault, match="cannot be read"):
        proofs_of(tmp_path / "nowhere")


def test_a_ledger_that_is_too_large_is_not_held_in_memory(bundle, monkeypatch):
    monkeypatch.setattr(proofs, "LARGEST", 3)
    monkeypatch.setattr(proofs, "leaf_hash", None)
    assert proofs_of(bundle) == ()


def test_a_text_that_is_too_long_is_left_out_and_proved_all_the_same(bundle, monkeypatch):
    monkeypatch.setattr(proofs, "LONGEST", 300)
    found = proofs_of(bundle)
    assert {bool(proof.text) for proof in found} == {True, False}
    assert all(joined(proof) == proof.root for proof in found)


def test_progress_is_told(tmp_path, bundle):
    told = []
    proofs_of(bundle, seen=lambda done, count: told.append((done, count)))
    assert told == []  # a small one is read before anybody could look


def test_findings_name_their_entries(tmp_path, bundle):
    changed = opened(bundle.read_bytes())
    place = changed.at("reserve")
    changed.entries[place - 1]["body"]["random"] = "seeded"
    path = tmp_path / "changed"
    path.write_bytes(resigned(changed, made().partner, made().coordinator))
    assert place in named_in(verify_bundle(path, accounting=False))
