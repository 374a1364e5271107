"""Manifests: one byte string for one meaning, signed by one partner, for one data set; and what things are bound to."""

import dataclasses
import hashlib
import itertools
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coterie.privacy.fields.errors import SealFault
from coterie.privacy.fields.manifest import Manifest, Stream, Whose, column_context, inside_context, key_context
from coterie.privacy.identity import Identity, raw_key

US, THEM = Identity.create(), Identity.create()
WHOSE = Whose(US.public, "customers")
STREAM = Stream("0" * 31 + "1", 3, 512, "sha256:" + "ab" * 32, b"wrapped-key")


def unsigned(**changes):
    fields = {
        "whose": WHOSE,
        "version": 3,
        "keys": "file",
        "epoch": "0001",
        "streams": (STREAM, dataclasses.replace(STREAM, file="f" * 32)),
        "inside": b"sealed",
        "inside_key": b"wrapped-too",
        "salt": "0a" * 16,
    }
    return Manifest(**fields | changes)


WRITTEN = unsigned().signed(US)


def read(data, whose=WHOSE):
    return Manifest.from_bytes(data, whose, place="the place")


def test_a_manifest_is_read_as_it_was_written():
    assert read(WRITTEN.to_bytes()) == WRITTEN
    empty = unsigned(streams=(), inside=b"").signed(US)
    assert read(empty.to_bytes()) == empty


def test_digest_and_signature_are_those_that_plain_json_and_another_library_call_find():
    table = json.loads(WRITTEN.to_bytes())
    written = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert written == WRITTEN.to_bytes()
    assert WRITTEN.digest() == "sha256:" + hashlib.sha256(written).hexdigest()
    signature = bytes.fromhex(table.pop("signature"))
    body = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    Ed25519PublicKey.from_public_bytes(raw_key(US.public)).verify(signature, b"coterie/vault-manifest/v1\n" + body)


def test_two_manifests_of_the_same_things_have_two_digests():
    one, other = (unsigned(salt=Manifest.new_salt()).signed(US).digest() for _ in range(2))
    assert one != other


def leaves(value, path=()):
    """Every place of a JSON value, the inner ones too."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from leaves(inner, (*path, key))


def changed(table, path, value):
    table = json.loads(json.dumps(table))
    if not path:
        return value
    *outer, last = path
    place = table
    for key in outer:
        place = place[key]
    place[last] = value
    return table


def lacking(table, path):
    table = json.loads(json.dumps(table))
    *outer, last = path
    place = table
    for key in outer:
        place = place[key]
    del place[last]
    return table


def spelled(table):
    return json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


ODD = (None, True, -1, 1.5, 2**53, 10**400, "", "x" * 500, "\ud800", "é\x00", [], [[]], {}, {"a": 1}, "AA==", "zz")


def test_whatever_stands_in_a_place_of_it_is_refused_in_one_way():
    table, tried = json.loads(WRITTEN.to_bytes()), 0
    for path, odd in itertools.product(leaves(table), ODD):
        data = json.dumps(changed(table, path, odd), sort_keys=True, separators=(",", ":")).encode()
        with pytest.raises(SealFault) as caught:
            read(data)
        assert caught.value.faults[0].place == "the place"
        tried += 1
    for path in leaves(table):
        if path:
            with pytest.raises(SealFault):
                read(spelled(lacking(table, path)))
            tried += 1
    with pytest.raises(SealFault):
        read(spelled(table | {"more": 1}))
    assert tried > 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format":' + b"9" * 5000 + b"}",
        b"NaN",
        b"\x00" * 64,
    ],
    ids=["empty", "cut", "null", "list", "number", "no text", "deep", "long number", "no number", "zeros"],
)
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(SealFault, match="is not a manifest of a vault of this version, or was changed"):
        read(data)


@pytest.mark.parametrize("again", [b" ", b"\n", b"{}"], ids=["a blank", "a line", "more"])
def test_another_spelling_of_the_same_manifest_is_refused(again):
    for data in (WRITTEN.to_bytes() + again, again + WRITTEN.to_bytes()):
        with pytest.raises(SealFault):
            read(data)
    table = json.loads(WRITTEN.to_bytes())
    for other in (json.dumps(table), json.dumps(table, sort_keys=True), spelled(table).decode().replace("/", "\\/")):
        with pytest.raises(SealFault):
            read(other.encode())
    table["signature"] = table["signature"].upper()
    with pytest.raises(SealFault, match="was changed"):
        read(spelled(table))


def test_a_manifest_of_another_partner_or_data_set_is_refused_by_name():
    for whose in (Whose(THEM.public, "customers"), Whose(US.public, "interactions")):
        other = unsigned(whose=whose).signed(US)
        with pytest.raises(SealFault, match="is of another partner or data set"):
            read(other.to_bytes())


def test_a_manifest_that_another_key_signed_is_refused():
    for forged in (unsigned().signed(THEM), unsigned(), dataclasses.replace(WRITTEN, version=4)):
        with pytest.raises(SealFault, match="is not signed by this partner"):
            read(forged.to_bytes())


def test_a_signature_for_something_else_is_none_for_a_manifest():
    body = {key: value for key, value in json.loads(WRITTEN.to_bytes()).items() if key != "signature"}
    bare = dataclasses.replace(WRITTEN, signature=US.sign(spelled(body)))
    with pytest.raises(SealFault, match="is not signed by this partner"):
        read(bare.to_bytes())


def test_no_fault_tells_what_the_file_holds():
    table = changed(json.loads(WRITTEN.to_bytes()), ("epoch",), "canary-4711")
    for data in (spelled(table), spelled(changed(table, ("salt",), "canary-4711")), b"canary-4711"):
        with pytest.raises(SealFault) as caught:
            read(data)
        assert "canary" not in repr(caught.value) + str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_contexts_differ_in_every_part_and_none_runs_into_another():
    files = [STREAM, dataclasses.replace(STREAM, file="f" * 32), dataclasses.replace(STREAM, version=4)]
    whoses = [
        WHOSE,
        Whose(THEM.public, "customers"),
        Whose(US.public, "interactions"),
        Whose(US.public, 'customers","x'),
    ]
    names = ["a", "b", 'a",1,"', "a\\", "a\u0301", "á", "", "a\n"]
    found = [column_context(w, n, s) for w in whoses for n in names for s in files]
    found += [key_context(w, s.file) for w in whoses for s in files[:2]]
    found += [inside_context(w, v, salt) for w in whoses for v in (3, 4, 33) for salt in ("0" * 32, "3" * 32)]
    assert len(set(found)) == len(found)
    assert all(json.loads(context)[0].startswith("coterie/vault/v1/") for context in found)


def test_size_and_digest_of_a_stream_are_no_part_of_its_context():
    # They are known only when it is sealed; the signed manifest holds them.
    resized = dataclasses.replace(STREAM, size=1, sha256="sha256:" + "0" * 64, key=b"")
    assert column_context(WHOSE, "a", resized) == column_context(WHOSE, "a", STREAM)
