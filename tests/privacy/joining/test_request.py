"""A request to join: nobody but the holder of both keys can make it, and no byte of it can change."""

import copy
import dataclasses
import datetime
import json
import random

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.joining.forms import JoinFault, fingerprint
from coterie.privacy.joining.nodekey import make_node_key, prove, public_of
from coterie.privacy.joining.request import JoinRequest, make_request, read_request

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
IDENTITY, NODE = Identity.create(), make_node_key()
DATA = make_request("bank", IDENTITY, NODE, version="1.2.3", now=NOW)


def table():
    return json.loads(DATA)


def resealed(content, *, identity=IDENTITY, node=NODE):
    """Seal any content as its holder would, without the checks of `make_request`."""
    proof = prove(node, b"coterie/join-request/v1/proof\n" + canonical(content))
    said = b"coterie/join-request/v1/signature\n" + canonical({"proof": proof.hex(), "request": content})
    form = {"format": "coterie/join-request/v1", "proof": proof.hex(), "request": content}
    return canonical({**form, "signature": identity.sign(said).hex()})


def test_a_request_comes_back_as_it_was_made():
    asked = JoinRequest(
        name="bank", key=IDENTITY.public, node=public_of(NODE), version="1.2.3", at="2030-01-02T03:04:05+00:00"
    )
    assert read_request(DATA) == asked
    assert asked.fingerprint == fingerprint(f"{IDENTITY.public}\n{public_of(NODE)}")
    assert read_request(resealed(dataclasses.asdict(asked))) == asked  # the tests' own seal is the right one


def test_no_private_key_is_in_a_request():
    number = load_ssh_private_key(NODE, None).private_numbers().private_value.to_bytes(48, "big")
    secret = IDENTITY._key.private_bytes_raw()
    decoded = b"".join(bytes.fromhex(table()[seal]) for seal in ("proof", "signature"))
    for hidden in (number, secret, NODE):
        for spelled in (hidden, hidden.hex().encode(), hidden[:16]):
            assert spelled not in DATA
            assert spelled not in decoded


def test_every_flipped_byte_is_refused():
    for place in range(len(DATA)):
        harmed = DATA[:place] + bytes([DATA[place] ^ 1]) + DATA[place + 1 :]
        with pytest.raises(JoinFault):
            read_request(harmed)


@pytest.mark.parametrize("name", ["name", "key", "node", "version", "at"])
def test_every_field_exchanged_is_refused(name):
    other = read_request(
        make_request("shop", Identity.create(), make_node_key(), version="9", now=NOW + datetime.timedelta(1))
    )
    harmed = table()
    harmed["request"][name] = getattr(other, name)
    with pytest.raises(JoinFault):
        read_request(canonical(harmed))


@pytest.mark.parametrize("seal", ["proof", "signature"])
def test_a_seal_of_another_request_is_refused(seal):
    harmed = table()
    harmed[seal] = json.loads(make_request("shop", IDENTITY, NODE, version="1.2.3", now=NOW))[seal]
    with pytest.raises(JoinFault):
        read_request(canonical(harmed))


def test_an_impostor_with_another_identity_cannot_use_the_node_s_key():
    impostor, content = Identity.create(), table()["request"]
    stolen = {**content, "key": impostor.public}
    said = b"coterie/join-request/v1/signature\n" + canonical({"proof": table()["proof"], "request": stolen})
    form = {**table(), "request": stolen, "signature": impostor.sign(said).hex()}
    with pytest.raises(JoinFault, match="does not prove that its sender holds the node's key"):
        read_request(canonical(form))


def test_an_impostor_with_another_node_cannot_use_the_identity():
    other = make_node_key()
    content = {**table()["request"], "node": public_of(other)}
    with pytest.raises(JoinFault, match="is not by the identity"):
        read_request(resealed(content, node=other, identity=Identity.create()))


def test_a_second_spelling_of_the_proof_is_refused():
    """ECDSA signatures (r, s) and (r, n - s) are both valid; the identity has signed one of them."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
    harmed = table()
    r, s = decode_dss_signature(bytes.fromhex(harmed["proof"]))
    harmed["proof"] = encode_dss_signature(r, order - s).hex()
    from coterie.privacy.joining.nodekey import check_proof

    said = b"coterie/join-request/v1/proof\n" + canonical(harmed["request"])
    check_proof(public_of(NODE), bytes.fromhex(harmed["proof"]), said)
    with pytest.raises(JoinFault, match="is not by the identity"):
        read_request(canonical(harmed))


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "n" * 61},
        {"name": "tab\tand"},
        {"name": 7},
        {"key": "ed25519:AAAA"},
        {"node": "ecdsa-sha2-nistp256 AAAA"},
        {"version": ""},
        {"version": None},
        {"at": "yesterday"},
        {"at": "2030-01-02T03:04:05Z"},
        {"more": "canary-4711"},
    ],
)
def test_a_well_signed_request_with_a_wrong_field_is_refused(change):
    with pytest.raises(JoinFault) as caught:
        read_request(resealed({**table()["request"], **change}))
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "key", "node", "version", "at"])
def test_a_well_signed_request_without_a_field_is_refused(missing):
    content = table()["request"]
    del content[missing]
    with pytest.raises(JoinFault, match=f"{missing}: is missing"):
        read_request(resealed(content))


def malformed():
    form = table()
    yield b""
    yield b"null"
    yield b"[]"
    yield b'"format"'
    yield b"\xff\xfe"
    yield b"[" * 4000
    yield DATA + b" "
    yield b" " + DATA
    yield DATA.replace(b",", b", ", 1)
    yield DATA.replace(b'"format"', b'"format":"coterie/join-request/v1","format"', 1)
    yield json.dumps(form, sort_keys=False, indent=1).encode()
    yield canonical({**form, "extra": 1})
    yield canonical({**form, "format": "coterie/join-request/v2"})
    yield canonical({**form, "proof": form["proof"].upper()})
    yield canonical({**form, "proof": 7})
    yield canonical({**form, "signature": "zz"})
    yield canonical({**form, "signature": ""})
    yield canonical({**form, "request": []})
    yield canonical({**form, "request": None})
    yield canonical({**form, "request": {**form["request"], "name": "n" * 5000}})
    for key in form:
        yield canonical({name: value for name, value in form.items() if name != key})


@pytest.mark.parametrize("data", list(malformed()))
def test_a_malformed_request_is_refused(data):
    with pytest.raises(JoinFault):
        read_request(data)


def test_random_damage_is_refused_and_never_raises_anything_else():
    draw = random.Random(7)  # noqa: S311 - damage, not secrets
    for _ in range(1500):
        form = copy.deepcopy(table())
        place = form if draw.random() < 0.3 else form["request"]
        key = draw.choice(list(place))
        place[key] = draw.choice([None, 0, -1, 2**52, 1.5, True, "", "x", "\ud800", [], {}, [1], {"a": 1}, "\x00", "é"])
        data = json.dumps(form, sort_keys=True, separators=(",", ":")).encode()
        with pytest.raises(JoinFault):
            read_request(data)


def test_a_request_is_fresh_for_as_long_as_it_was_said():
    asked, most = read_request(DATA), datetime.timedelta(days=14)
    for hours in (-1, 0, 14 * 24):
        asked.check_age(NOW + datetime.timedelta(hours=hours), most)
    with pytest.raises(JoinFault, match="more than 14 days old"):
        asked.check_age(NOW + datetime.timedelta(days=14, seconds=1), most)
    with pytest.raises(JoinFault, match="ahead of this machine's clock"):
        asked.check_age(NOW - datetime.timedelta(hours=1, seconds=1), most)
