"""Sealed parcels: what is not exactly the parcel that is due does not open."""

import dataclasses
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coterie.privacy.matching.channel import Parcel, opened, seal
from coterie.privacy.matching.errors import MatchFault, PeerFault
from coterie.privacy.matching.ways import Address, Stretch, stretches
from coterie.privacy.randomness import SeededSource
from coterie.tests.privacy.matching.matchkit import Match, terms_of

LISTS = {"art": range(20), "books": range(10, 30), "cars": range(5)}


@pytest.fixture(scope="module")
def match():
    return Match(terms_of(3, "rows"), LISTS)


def stream(label="nonce"):
    return SeededSource(b"channel").stream(label)


def sealed(match, sender="art", **changes):
    """Return the first parcel of a list on its way to the next partner."""
    one = match.parties[sender]
    address = Address(**{"list": sender, "hop": 0, "index": 0, **changes})
    size = match.terms.rows_of(one.manifest.of(sender).size, address.index)
    rows = one.points[address.index * 16 :][:size]
    return seal(one.own, one.manifest, address=address, rows=rows, stream=stream())


def open_at(match, parcel, name="books"):
    return opened(match.parties[name].own, match.parties[name].manifest, parcel)


def test_what_was_sealed_opens_at_its_receiver(match):
    assert np.array_equal(open_at(match, sealed(match)), match.parties["art"].points[:16])


def test_a_parcel_opens_by_the_specification_alone(match):
    """With X25519, HKDF and AES-GCM at first hand, and JSON that is written here."""
    parcel, books = sealed(match), match.parties["books"]
    public = bytes.fromhex(match.parties["art"].commitment.channel)
    private = X25519PrivateKey.from_private_bytes(books.own.secrets.channel)
    bound = {"plan": match.terms.plan, "manifest": books.manifest.digest, "sender": "art", "receiver": "books"}
    info = written({"format": "coterie/match/seal/v1", **bound})
    key = HKDF(SHA256(), 32, None, info).derive(private.exchange(X25519PublicKey.from_public_bytes(public)))
    header = written({**bound, "list": "art", "hop": 0, "index": 0, "towards": "", "count": parcel.count})
    plain = AESGCM(key).decrypt(parcel.sealed[:12], parcel.sealed[12:], header)
    assert plain == match.parties["art"].points[:16].tobytes()


def written(table):
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode()


def test_a_parcel_has_one_spelling(match):
    parcel = sealed(match)
    data = parcel.to_bytes()
    assert Parcel.from_bytes(data) == parcel
    assert Parcel.from_parts(parcel.header, parcel.sealed) == parcel
    length = int.from_bytes(data[:8], "big")
    spaced = data[8 : 8 + length].replace(b",", b", ", 1)
    for bad in (
        (length + 1).to_bytes(8, "big") + spaced + data[8 + length :],
        data[:7],
        b"",
        data[:8] + b"[1]" + data[11:],
    ):
        with pytest.raises(PeerFault, match="not a parcel"):
            Parcel.from_bytes(bad)


@pytest.mark.parametrize(
    "change",
    [{"hop": "0"}, {"hop": True}, {"plan": None}, {"more": 1}, {"list": 3}, {"index": 0.0}],
    ids=["text", "boolean", "nothing", "more", "number", "float"],
)
def test_a_header_that_is_not_one_is_refused(match, change):
    parcel = sealed(match)
    with pytest.raises(PeerFault, match="not a parcel"):
        Parcel.from_parts({**parcel.header, **change}, parcel.sealed)


@pytest.mark.parametrize("place", [0, 11, 12, 100, -1])
def test_a_changed_bit_is_seen(match, place):
    parcel = sealed(match)
    data = bytearray(parcel.sealed)
    data[place] ^= 1
    with pytest.raises(PeerFault, match="list of art, chunk 0, from art: does not open") as caught:
        open_at(match, dataclasses.replace(parcel, sealed=bytes(data)))
    assert caught.value.partner == "art"


CLAIMS = {
    "another plan": ({"plan": "sha256:" + "0" * 64}, "another plan or another manifest"),
    "another manifest": ({"manifest": "sha256:" + "0" * 64}, "another plan or another manifest"),
    "another list": ({"address": Address("cars", 0, 0)}, "not on the way"),
    "another hop": ({"address": Address("art", 1, 0)}, "not on the way"),
    "no hop": ({"address": Address("art", -1, 0)}, "not on the way"),
    "beyond the last hop": ({"address": Address("art", 3, 0)}, "not on the way"),
    "a stranger's list": ({"address": Address("ink", 0, 0)}, "not on the way"),
    "tokens on a list's hop": ({"address": Address("art", 0, 0, "books")}, "not on the way"),
    "tokens for oneself": ({"address": Address("art", 3, 0, "art")}, "not on the way"),
    "another sender": ({"sender": "cars"}, "not on the way"),
    "another receiver": ({"receiver": "cars"}, "not on the way"),
    "another index": ({"address": Address("art", 0, 1)}, "does not open|longer or shorter"),
    "an index beyond": ({"address": Address("art", 0, 2)}, "2 chunks as committed"),
    "an index before": ({"address": Address("art", 0, -1)}, "2 chunks as committed"),
    "another count": ({"count": 3}, "2 chunks as committed"),
}


@pytest.mark.parametrize(("changes", "rule"), CLAIMS.values(), ids=CLAIMS)
def test_a_parcel_that_claims_to_be_another_is_refused(match, changes, rule):
    with pytest.raises(PeerFault, match=rule):
        open_at(match, dataclasses.replace(sealed(match), **changes))


@pytest.mark.parametrize("length", [-1, 1, 32, -32])
def test_a_parcel_longer_or_shorter_than_committed_is_refused(match, length):
    parcel = sealed(match)
    data = parcel.sealed[:length] if length < 0 else parcel.sealed + bytes(length)
    with pytest.raises(PeerFault, match="longer or shorter"):
        open_at(match, dataclasses.replace(parcel, sealed=data))


def test_a_parcel_for_another_partner_is_refused(match):
    with pytest.raises(PeerFault, match="for another partner"):
        open_at(match, sealed(match), "cars")


def test_who_relays_cannot_turn_a_parcel_round(match):
    """The reverse direction and another hop have keys and headers of their own."""
    parcel = sealed(match)
    back = dataclasses.replace(parcel, address=Address("books", 2, 0), sender="art", receiver="books")
    with pytest.raises(PeerFault, match="does not open"):
        open_at(match, back)


def test_partners_with_different_manifests_cannot_read_each_other(match):
    other = Match(match.terms, {**LISTS, "cars": range(6)})
    parcel = dataclasses.replace(sealed(match), manifest=other.parties["books"].manifest.digest)
    with pytest.raises(PeerFault, match="does not open"):
        open_at(other, parcel)


def test_a_partner_seals_what_is_its_own_to_send_and_nothing_else(match):
    art = match.parties["art"]
    rows = art.points[:16]
    for address, wrong in (
        (Address("books", 0, 0), rows),
        (Address("art", 0, 0), rows[:15]),
        (Address("art", 0, 0), rows.astype(np.int64)),
        (Address("art", 9, 0), rows),
    ):
        with pytest.raises(MatchFault):
            seal(art.own, art.manifest, address=address, rows=wrong, stream=stream())


def test_one_nonce_never_seals_twice(match):
    whole = match.parties["art"]
    nonces = stream()
    sealed_ones = [
        seal(whole.own, whole.manifest, address=Address("art", 0, 0), rows=whole.points[:16], stream=nonces)
        for _ in range(200)
    ]
    assert len({one.sealed[:12] for one in sealed_ones}) == 200


def test_who_relays_knows_every_stretch_of_a_lists_way():
    terms = terms_of(3, "rows")
    assert stretches(terms, "books") == (
        Stretch("books", 0, "", "books", "cars"),
        Stretch("books", 1, "", "cars", "art"),
        Stretch("books", 2, "", "art", "books"),
        Stretch("books", 3, "art", "books", "art"),
        Stretch("books", 3, "cars", "books", "cars"),
    )
    assert [one.receiver for one in stretches(terms_of(3, teller="art"), "books")] == ["cars", "art"]
    assert all(one.address(4) == Address(one.list, one.hop, 4, one.towards) for one in stretches(terms, "art"))
