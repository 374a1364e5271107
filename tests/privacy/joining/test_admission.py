"""An admission: signed by the coordinator, for one partner and one node, for a time."""

import dataclasses
import datetime
import json

import pytest

from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.joining.admission import Admission, endpoint, read_admission, sign_admission
from coterie.privacy.joining.certificates import issue_server, make_authority
from coterie.privacy.joining.forms import JoinFault, fingerprint, stamp
from coterie.privacy.joining.nodekey import make_node_key, public_of

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
COORDINATOR, PARTNER = Identity.create(), Identity.create()
AUTHORITY = make_authority("ministry", NOW)


def admission(**changes):
    fields = {
        "name": "bank",
        "key": PARTNER.public,
        "node": public_of(NODE),
        "coordinator": COORDINATOR.public,
        "address": "studies.example:443",
        "authority": AUTHORITY.certificate.decode(),
        "bundle": "sha256:" + "ab" * 32,
        "admitted": stamp(NOW),
        "expires": stamp(NOW + datetime.timedelta(days=365)),
    }
    return Admission(**{**fields, **changes})


NODE = make_node_key()
DATA = sign_admission(admission(), COORDINATOR)
FIELDS = [field.name for field in dataclasses.fields(Admission)]


def resigned(content, coordinator=COORDINATOR):
    """Sign any content as a coordinator would, without the checks of `sign_admission`."""
    signature = coordinator.sign(b"coterie/admission/v1/signature\n" + canonical(content)).hex()
    return canonical({"format": "coterie/admission/v1", "admission": content, "signature": signature})


def test_an_admission_comes_back_as_it_was_signed():
    assert read_admission(DATA) == admission()
    assert resigned(dataclasses.asdict(admission())) == DATA  # the tests' own signature is the right one
    assert read_admission(DATA).fingerprint == fingerprint(COORDINATOR.public)


def test_no_private_key_is_in_an_admission():
    for hidden in (COORDINATOR._key.private_bytes_raw(), AUTHORITY.key):
        for spelled in (hidden, hidden.hex().encode()):
            assert spelled not in DATA
    assert b"PRIVATE" not in DATA


def test_every_flipped_byte_is_refused():
    for place in range(len(DATA)):
        with pytest.raises(JoinFault):
            read_admission(DATA[:place] + bytes([DATA[place] ^ 1]) + DATA[place + 1 :])


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_exchanged_is_refused(name):
    other = {
        "name": "shop",
        "key": Identity.create().public,
        "node": public_of(make_node_key()),
        "coordinator": Identity.create().public,
        "address": "evil.example:443",
        "authority": make_authority("ministry", NOW).certificate.decode(),
        "bundle": "sha256:" + "cd" * 32,
        "admitted": stamp(NOW - SECOND),
        "expires": stamp(NOW + datetime.timedelta(days=3650)),
    }
    table = json.loads(DATA)
    table["admission"][name] = other[name]
    with pytest.raises(JoinFault, match="is not by the coordinator"):
        read_admission(canonical(table))
    # The same content is taken when it is signed: the refusal above was the signature's.
    if name != "coordinator":
        assert getattr(read_admission(resigned(table["admission"])), name) == other[name]


def test_a_partner_cannot_sign_its_own_admission():
    content = dataclasses.asdict(admission())
    with pytest.raises(JoinFault, match="is not by the coordinator"):
        read_admission(resigned(content, PARTNER))
    with pytest.raises(ValueError, match="signed by the coordinator that it names"):
        sign_admission(admission(), PARTNER)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "n" * 61},
        {"key": "ed25519:AAAA"},
        {"node": "ssh-ed25519 AAAA"},
        {"address": "studies.example"},
        {"address": "studies.example:0"},
        {"authority": ""},
        {"authority": issue_server(AUTHORITY, "x.example", NOW).certificate.decode()},
        {"authority": AUTHORITY.certificate.decode() + AUTHORITY.key.decode()},
        {"bundle": "sha256:" + "AB" * 32},
        {"bundle": "ab" * 32},
        {"admitted": "today"},
        {"expires": stamp(NOW)},
        {"expires": stamp(NOW - SECOND)},
        {"expires": "2030-13-01T00:00:00+00:00"},
    ],
)
def test_a_well_signed_admission_with_a_wrong_field_is_refused_by_reader_and_signer(changes):
    with pytest.raises(JoinFault):
        read_admission(resigned(dataclasses.asdict(admission(**changes))))
    if "name" not in changes:  # the books have checked it
        with pytest.raises(JoinFault):
            sign_admission(admission(**changes), COORDINATOR)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, 7, True, [], {}])
def test_a_field_of_another_type_is_refused(name, value):
    with pytest.raises(JoinFault):
        read_admission(resigned({**dataclasses.asdict(admission()), name: value}))


def test_unknown_and_missing_fields_are_refused():
    content = dataclasses.asdict(admission())
    with pytest.raises(JoinFault, match="unknown key"):
        read_admission(resigned({**content, "more": 1}))
    for name in FIELDS:
        with pytest.raises(JoinFault, match="is missing"):
            read_admission(resigned({key: value for key, value in content.items() if key != name}))


@pytest.mark.parametrize("data", [b"", b"{}", b"null", DATA + b"\n", DATA * 2, b"[" * 70_000, b"\xff"])
def test_a_malformed_admission_is_refused(data):
    with pytest.raises(JoinFault):
        read_admission(data)


def test_an_admission_is_for_one_name_one_identity_and_the_nodes_that_were_offered():
    admission().check_holder("bank", PARTNER.public, (public_of(make_node_key()), public_of(NODE)))
    for name, key, nodes, wrong in (
        ("shop", PARTNER.public, (public_of(NODE),), ["name"]),
        ("bank", Identity.create().public, (public_of(NODE),), ["key"]),
        ("bank", PARTNER.public, (public_of(make_node_key()),), ["node"]),
        ("bank", PARTNER.public, (), ["node"]),
        ("shop", COORDINATOR.public, (), ["name", "key", "node"]),
    ):
        with pytest.raises(JoinFault) as caught:
            admission().check_holder(name, key, nodes)
        assert [fault.place for fault in caught.value.faults] == [f"admission.{what}" for what in wrong]


def test_an_admission_is_in_force_from_an_hour_before_it_was_signed_until_it_expires():
    year, hour = datetime.timedelta(days=365), datetime.timedelta(hours=1)
    for now in (NOW - hour, NOW, NOW + year - SECOND):
        admission().check_dates(now)
    for now in (NOW + year, NOW + 2 * year):
        with pytest.raises(JoinFault, match="expires: has passed"):
            admission().check_dates(now)
    with pytest.raises(JoinFault, match="ahead of this machine's clock"):
        admission().check_dates(NOW - hour - SECOND)


def test_a_coordinator_with_another_bundle_is_refused():
    admission().check_bundle("sha256:" + "ab" * 32)
    with pytest.raises(JoinFault, match="same version of coterie at both ends"):
        admission().check_bundle("sha256:" + "ab" * 31 + "ac")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("studies.example:443", ("studies.example", 443)),
        ("a:1", ("a", 1)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("[::1]:443", ("::1", 443)),
        ("xn--bcher-kva.example:8443", ("xn--bcher-kva.example", 8443)),
    ],
)
def test_an_address_is_a_host_and_a_port(address, found):
    assert endpoint(address) == found


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        ":443",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:0443",
        "host:-1",
        "host:+1",
        "host: 443",
        "host:443 ",
        "host:٤٤٣",
        "https://host:443",
        "host/path:443",
        "user@host:443",
        "bücher.example:443",
        "-host:443",
        "host..example:443",
        "::1:443",
        "[::1:443",
        "[host]:443",
        "[]:443",
        "h" * 64 + ":443",
        "h." * 127 + "h:443",
        "host\n:443",
        "host:443\n",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(JoinFault, match="host:port"):
        endpoint(address)
