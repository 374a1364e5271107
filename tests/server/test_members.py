"""Who may connect now: by the books, looked up again within a second or so."""

import datetime
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from coterie.privacy.clock import now
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.running.members import admitted_keys, current
from coterie.server.running.operator import node_bytes
from coterie.tests.server.bookwriters import START, member

SECOND = datetime.timedelta(seconds=1)


def node_key():
    """Return a fresh node key in OpenSSH's form."""
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def partner(name, expires="2099-01-01T00:00:00+00:00", **changes):
    return member(name, node=node_key(), expires=expires, **changes)


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="coordinator", address="localhost:4711", clock=now)


@pytest.fixture
def books(office):
    with Books(office.books_url, now) as books:
        yield books


def test_a_member_is_current_until_the_moment_at_which_its_time_ends():
    ends = partner("amber", START.isoformat())
    assert current((ends,), START - SECOND) == (ends,)
    assert current((ends,), START) == ()


def test_a_time_in_another_zone_is_the_moment_that_it_names():
    ends = partner("amber", "2031-05-04T14:00:00+02:00")
    assert current((ends,), START - SECOND) == (ends,)
    assert current((ends,), START) == ()


def test_a_revoked_member_is_not_current_whatever_its_time():
    assert current((replace(partner("amber"), revoked="2031-05-04"),), START) == ()


def test_a_key_is_known_by_the_point_of_the_curve_that_flower_sends():
    key = node_key()
    point = load_ssh_public_key(key.encode())
    assert load_der(node_bytes(key)) == point.public_numbers()


def load_der(data):
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key

    return bytes_to_public_key(data).public_numbers()


def test_only_current_members_may_connect_and_each_is_known_by_name(office, books):
    amber, cedar = partner("amber"), partner("cedar", "2020-01-01T00:00:00+00:00")
    books.admit(amber)
    books.admit(cedar)
    books.admit(partner("birch"))
    books.revoke("birch")
    assert admitted_keys(office)() == {node_bytes(amber.node): "amber"}


def test_a_revocation_an_admission_and_a_renewal_take_hold_at_the_next_look(office, books):
    clock = [0.0]
    keys = admitted_keys(office, lambda: clock[0])
    amber, birch = partner("amber"), partner("birch")
    books.admit(amber)
    assert set(keys().values()) == {"amber"}
    books.admit(birch)
    books.revoke("amber")
    clock[0] = 1.0
    assert set(keys().values()) == {"amber"}  # the last look is still fresh
    clock[0] = 1.01
    assert keys() == {node_bytes(birch.node): "birch"}
    renewed = replace(birch, node=node_key())
    books.admit(renewed)
    clock[0] = 2.1
    assert keys() == {node_bytes(renewed.node): "birch"}
