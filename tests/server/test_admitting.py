"""Admitting: what is proved is filed, and what a partner gets is what it asked for."""

import datetime

import pytest

from coterie.privacy.errors import CoterieError
from coterie.privacy.identity import Identity
from coterie.privacy.joining.admission import read_admission
from coterie.privacy.joining.forms import JoinFault, stamp
from coterie.privacy.joining.nodekey import make_node_key, public_of
from coterie.privacy.joining.request import make_request
from coterie.server.admitting import admit, consider
from coterie.server.books import Books
from coterie.server.office import Office

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
BUNDLE = "sha256:" + "ab" * 32


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def office(tmp_path, clock):
    return Office.create(tmp_path / "office", name="ministry", address="studies.example:443", clock=clock)


def members(office, clock):
    with Books(office.books_url, clock) as books:
        return {member.name: member for member in books.members()}


def asked(office, clock, name="bank", *, identity=None, node=None):
    data = make_request(name, identity or Identity.create(), node or make_node_key(), version="1", now=clock.now)
    return consider(office, data, clock=clock)


def let_in(office, clock, found):
    return read_admission(admit(office, found, bundle=BUNDLE, days=30, clock=clock))


def test_what_was_asked_is_admitted_signed_and_filed(office, clock):
    found = asked(office, clock)
    assert not found.known
    assert members(office, clock) == {}
    admission = let_in(office, clock, found)
    assert (admission.name, admission.key, admission.node) == ("bank", found.request.key, found.request.node)
    assert admission.coordinator == office.identity.public
    assert admission.address == "studies.example:443"
    assert admission.authority == office.authority.read_text()
    assert admission.bundle == BUNDLE
    assert (admission.admitted, admission.expires) == (stamp(NOW), stamp(NOW + 30 * DAY))
    member = members(office, clock)["bank"]
    assert (member.key, member.node, member.revoked) == (admission.key, admission.node, None)
    assert (member.admitted, member.expires) == (admission.admitted, admission.expires)


def test_the_same_keys_again_are_known_and_get_more_time(office, clock):
    identity, node = Identity.create(), make_node_key()
    let_in(office, clock, asked(office, clock, identity=identity, node=node))
    clock.now += 20 * DAY
    again = asked(office, clock, identity=identity, node=node)
    assert again.known
    let_in(office, clock, again)
    assert members(office, clock)["bank"].expires == stamp(NOW + 50 * DAY)


def test_a_new_node_s_key_is_not_known_and_replaces_the_old_one_for_good(office, clock):
    identity, old, new = Identity.create(), make_node_key(), make_node_key()
    let_in(office, clock, asked(office, clock, identity=identity, node=old))
    renewed = asked(office, clock, identity=identity, node=new)
    assert not renewed.known
    let_in(office, clock, renewed)
    assert members(office, clock)["bank"].node == public_of(new)
    replayed = asked(office, clock, identity=identity, node=old)
    assert not replayed.known
    with pytest.raises(CoterieError, match="replaced or revoked"):
        let_in(office, clock, replayed)
    assert members(office, clock)["bank"].node == public_of(new)


@pytest.mark.parametrize("same", ["name", "identity", "node"])
def test_a_stranger_does_not_get_what_another_partner_has(office, clock, same):
    first = {"name": "bank", "identity": Identity.create(), "node": make_node_key()}
    let_in(office, clock, asked(office, clock, **first))
    before = members(office, clock)
    stranger = {"name": "shop", "identity": Identity.create(), "node": make_node_key(), same: first[same]}
    found = asked(office, clock, **stranger)
    assert not found.known
    with pytest.raises(CoterieError):
        let_in(office, clock, found)
    assert members(office, clock) == before


def test_a_revoked_partner_comes_back_with_a_new_node_s_key_alone(office, clock):
    identity, node = Identity.create(), make_node_key()
    let_in(office, clock, asked(office, clock, identity=identity, node=node))
    with Books(office.books_url, clock) as books:
        books.revoke("bank")
    again = asked(office, clock, identity=identity, node=node)
    assert not again.known
    with pytest.raises(CoterieError, match="replaced or revoked"):
        let_in(office, clock, again)
    assert members(office, clock)["bank"].revoked is not None
    fresh = asked(office, clock, identity=identity)
    assert not fresh.known  # people compare again
    let_in(office, clock, fresh)
    assert members(office, clock)["bank"].revoked is None


def test_an_old_request_is_refused_by_the_office_s_days(office, clock):
    data = make_request("bank", Identity.create(), make_node_key(), version="1", now=NOW)
    clock.now = NOW + 14 * DAY
    consider(office, data, clock=clock)
    clock.now += datetime.timedelta(seconds=1)
    with pytest.raises(JoinFault, match="more than 14 days old"):
        consider(office, data, clock=clock)


def test_an_altered_request_is_refused_before_the_books_are_opened(office, clock):
    data = make_request("bank", Identity.create(), make_node_key(), version="1", now=NOW)
    with pytest.raises(JoinFault):
        consider(office, data.replace(b"bank", b"bonk"), clock=clock)
    assert not (office.root / "books.sqlite").exists()


def test_nothing_is_filed_when_the_admission_cannot_be_signed(office, clock):
    found = asked(office, clock)
    with pytest.raises(JoinFault, match="bundle"):
        admit(office, found, bundle="sha256:zz", days=30, clock=clock)
    assert members(office, clock) == {}
